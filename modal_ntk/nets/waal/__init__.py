"""WAAL's classifier, which learns beside its critic, and the parts of both."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
