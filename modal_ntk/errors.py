"""Every exception and warning the library raises, under one base each."""

from __future__ import annotations


class ModalNTKError(Exception):
    """Base of all errors raised by this library."""


class InvalidInputError(ModalNTKError, ValueError):
    """An argument has a value that cannot be used."""


class UnmetNeedError(ModalNTKError, TypeError):
    """A strategy needs something that the learner at hand cannot give."""


class UnknownNameError(ModalNTKError, LookupError):
    """A strategy, data set or layer was asked for under a name nobody has."""


class PluginError(ModalNTKError):
    """A plugin could not be loaded or breaks the plugin contract."""


class ContractError(ModalNTKError, AssertionError):
    """A strategy breaks a clause of the contract that `modal_ntk.testing` checks."""


class MissingExtraError(ModalNTKError, ImportError):
    """An optional dependency is needed and not installed."""


class StorageError(ModalNTKError, OSError):
    """A file could not be written: no space, no permission, no such folder. What was there before is kept."""


class IncompleteRunError(ModalNTKError):
    """Some runs of a comparison could not be run; all others were, and are stored."""


class ModalNTKWarning(UserWarning):
    """Base of all warnings raised by this library."""
