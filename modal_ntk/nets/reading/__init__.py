"""What is read from a net or classifier: the view of a learner, its logits, inputs and dropout."""
