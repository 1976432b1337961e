"""BAIT: batches that leave little to be learned about the last layer, by its Fisher information."""

from modal_ntk_bait.strategy import BAIT

__all__ = ["BAIT"]
