"""What strategies share: a query after its checks, the rows and kernels they read, the gate for results, remedies."""
