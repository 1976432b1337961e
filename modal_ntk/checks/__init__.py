"""Every argument check and its message, once: what was expected, what was got, what to do."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
