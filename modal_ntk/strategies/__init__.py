"""Query strategies, one file a method: the glue from a learner to indices."""
