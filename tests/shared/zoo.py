"""Small data and nets of every kind that users bring: those of the contract suite, under short names."""

from modal_ntk.testing.situations import (
    MLP,
    ConvNet,
    DictNet,
    FrozenBackbone,
    OneLogit,
    blobs,
)
from modal_ntk.testing.situations import skorch_net as net
from modal_ntk.testing.traces import assert_same_state, generators_untouched, state_of

__all__ = [
    "MLP",
    "ConvNet",
    "DictNet",
    "FrozenBackbone",
    "OneLogit",
    "assert_same_state",
    "blobs",
    "generators_untouched",
    "net",
    "state_of",
]
