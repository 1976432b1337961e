"""Margin sampling with a share of random picks."""

from modal_ntk_epsilon_margin.strategy import EpsilonMargin

__all__ = ["EpsilonMargin"]
