"""Warnings that point at the caller's own line, however deep in the library they arise."""

from __future__ import annotations

import sys
import warnings

import torch

from modal_ntk.errors import ModalNTKWarning


def warn(message: str) -> None:
    """Warn from the nearest line outside of this library.

    Parameters
    ----------
    message : str
        What to say.
    """
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "modal_ntk":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, ModalNTKWarning, stacklevel=level)


def let_out(error: Exception) -> None:
    """Raise an error of torch again if it tells of a full device and not of what a module cannot do.

    Parameters
    ----------
    error : Exception
        What was caught.

    Raises
    ------
    torch.cuda.OutOfMemoryError
        If it is that.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):
        raise error
