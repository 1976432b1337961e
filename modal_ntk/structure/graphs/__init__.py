"""Graphs of nearest rows, and labels diffused over them."""
