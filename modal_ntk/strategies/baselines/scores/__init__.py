"""Baselines that score each sample by itself."""
