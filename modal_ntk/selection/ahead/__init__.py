"""NTK look-ahead: what every candidate would change if it were labelled, and the engines that compute it."""
