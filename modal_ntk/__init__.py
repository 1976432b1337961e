"""Deep active learning for modAL and skorch, by neural-tangent-kernel look-ahead and its rivals."""

import lazy_loader

from modal_ntk.environment.moved import forward as _forward
from modal_ntk.environment.repairs import repair_modal as _repair_modal

_forward()
_repair_modal()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
