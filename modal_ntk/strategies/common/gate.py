"""The one gate for results: nothing leaves a strategy that is short, repeated, out of range or not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from modal_ntk import checks
from modal_ntk.errors import ContractError, InvalidInputError
from modal_ntk.selection.result import Selection

if TYPE_CHECKING:
    from modal_ntk.strategies.common.query import Query

_LARGE = 1e15  # outputs from which on squares in float32 overflow sooner or later


def checked(name: str, selected: Any, query: Query) -> Selection:
    """Return a selection that keeps the contract, its indices int64 and its scores float64.

    Parameters
    ----------
    name : str
        Of the strategy.
    selected : Selection
        What it chose.
    query : Query
        What it was asked.

    Returns
    -------
    Selection
        The same.

    Raises
    ------
    ContractError
        If it is none, or its indices or scores cannot be used; says what they hold, and what the model's outputs do.
    """
    if not isinstance(selected, Selection) or not isinstance(selected.info, dict):
        raise ContractError(f"Expected {name} to return a Selection with a dict as info, got {selected!r}.")
    indices = checks.check_picks(name, selected.indices, query.n_instances, query.n_pool)
    try:
        scores = np.asarray(selected.scores, dtype=np.float64)
    except (TypeError, ValueError):
        scores = np.empty(0)
    if scores.shape != indices.shape:
        got = f"{type(selected.scores).__name__} of shape {np.shape(selected.scores)}"
        raise ContractError(f"Expected {name} to return {len(indices)} numbers as scores, got {got}.")
    if not (finite := np.isfinite(scores)).all():
        first, n_bad = int((~finite).argmax()), int((~finite).sum())
        got = f"{scores[first]} for row {indices[first]} of the pool, and for {n_bad} of {len(scores)} in all"
        raise ContractError(f"Expected finite scores from {name}, got {got}. {what_the_model_says(query)}".rstrip())
    return Selection(indices, scores, selected.info)


def what_the_model_says(query: Query) -> str:
    """Say what is odd about the model's outputs for the pool; asked only where a strategy has come to grief.

    Parameters
    ----------
    query : Query
        What the strategy was asked.

    Returns
    -------
    str
        A sentence; empty if the outputs are ordinary, or there are none.
    """
    view = query.view
    if not view.is_fitted:
        return ""
    try:
        values = view.logits(query.X_pool) if view.net is not None else view.probabilities(query.X_pool)
    except InvalidInputError as error:
        return str(error)
    except Exception:  # noqa: BLE001 - there is an error to be told already
        return ""
    largest = float(values.abs().max())
    remedy = "Scale the inputs, or train with a lower learning rate."
    told = f"Expected outputs of the model of a size to compute with, got some that reach {largest:.3g}. {remedy}"
    return told if largest > _LARGE else ""
