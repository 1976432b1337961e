"""What a kernel or a distance is computed from: per-sample gradients, their factors and their sketches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
