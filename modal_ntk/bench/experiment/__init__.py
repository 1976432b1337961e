"""What is compared and on what: data sets, estimators, splits, strategies by name, and the protocol of a study."""
