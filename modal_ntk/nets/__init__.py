"""The only code that knows skorch and modAL: a view of a learner, and drop-in learners and nets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
