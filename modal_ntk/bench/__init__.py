"""Comparing strategies: data sets, the simulated loop, resumable runs, tables and curves."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
