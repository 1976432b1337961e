"""Fitting an estimator to whatever holds samples and labels, and leaving it as it was where that fails."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import skorch
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from torch import nn
from torch.nn.parameter import is_lazy

from modal_ntk import checks
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.nets.datasets import as_pairs, samples_of
from modal_ntk.nets.encoded import AS_NAMES, LabelEncoded, WrappedNet, attached, final_of, needs_encoding, unwrapped
from modal_ntk.nets.multilabel import MultiLabelNet
from modal_ntk.nets.reading.outputs import float_type
from modal_ntk.nets.rows import for_a_net, take_rows
from modal_ntk.nets.traceless import no_trace

_WITH_STATE = (nn.Module, torch.optim.Optimizer)


def for_labels(estimator: Any, y: Any, classes: Any = None) -> Any:
    """Return an estimator that can be taught by some labels.

    Parameters
    ----------
    estimator : estimator
        A net, a Pipeline, or any classifier.
    y : numpy.ndarray (n,)
        Labels that have been checked.
    classes : array-like, optional
        All labels that may come, where that is known.

    Returns
    -------
    estimator
        Itself; around a net a `LabelEncoded` where labels are no numbers, a `MultiLabelNet` where they are a matrix.
    """
    if isinstance(estimator, WrappedNet):
        return estimator
    if y.ndim > 1 and isinstance(final_of(estimator), skorch.NeuralNet):
        return MultiLabelNet(estimator)
    return LabelEncoded(estimator, classes) if needs_encoding(estimator, y) else estimator


def readable(estimator: Any, X: Any) -> Any:
    """Return samples as an estimator reads them: a net in the type it computes in, anything else as arrays.

    Parameters
    ----------
    estimator : estimator
        A net, a Pipeline, or any classifier.
    X : samples (n, ...)
        As users pass them, checked.

    Returns
    -------
    samples (n, ...)
        A Dataset as arrays, or for a net with items that are pairs.

    Raises
    ------
    InvalidInputError
        If a net cannot read their type, with the cast that helps.
    """
    inner = unwrapped(estimator)
    if checks.is_dataset(X):
        return as_pairs(X) if isinstance(inner, skorch.NeuralNet) else samples_of(X)
    if not isinstance(final_of(inner), skorch.NeuralNet):
        return X
    X = X if isinstance(inner, Pipeline) else for_a_net(X)
    wanted = wanted_type(inner, X)
    return X if wanted is None else _as_type(X, wanted)


def train(estimator: Any, X: Any, y: np.ndarray, *, on: bool = False, **fit_params: Any) -> Any:
    """Fit an estimator to samples and labels.

    Parameters
    ----------
    estimator : estimator
        A net, a Pipeline, or any classifier.
    X : samples (n, ...)
        As users pass them, checked; of a Dataset the labels play no part.
    y : numpy.ndarray (n,) or (n, K)
        Labels that have been checked.
    on : bool, default=False
        Whether to train on by ``partial_fit``.
    **fit_params
        Passed to the estimator.

    Returns
    -------
    estimator
        What its ``fit`` returns.

    Raises
    ------
    InvalidInputError
        If a net cannot read the samples, has no output for a label, or splits off more parts than there are labels.
    """
    X = readable(estimator, X)
    if not isinstance(estimator, WrappedNet):  # which makes of labels what the net takes
        X, y = attached(estimator, X, y)
    try:
        return (estimator.partial_fit if on else estimator.fit)(X, y, **fit_params)
    except (IndexError, ValueError) as error:
        _raise_in_our_words(error, estimator, y)
        raise


def _raise_in_our_words(error: Exception, estimator: Any, y: np.ndarray) -> None:
    # Torch and scikit-learn speak of labels as of arguments of their own, which the caller never passed.
    if not isinstance(final_of(estimator), skorch.NeuralNet):
        return
    if isinstance(error, IndexError) and "Target" in str(error):
        remedy = "Give the net an output for each of them."
        if y.dtype.kind not in "iuf":
            raise checks.expected("no more labels than outputs of the net", f"{len(np.unique(y))}", remedy) from error
        wanted = "labels below the number of the net's outputs"
        raise checks.expected(wanted, f"{y.max()}", f"{remedy} {AS_NAMES}") from error
    if "n_splits=" in str(error):
        remedy = "Make the net with train_split=None, skorch's default being five parts, or label more first."
        raise checks.expected("labels enough for the net's validation split", f"{len(y)}", remedy) from error


def wanted_type(estimator: Any, X: Any) -> torch.dtype | None:
    """Return the type that samples must be cast to for a net, tried on one sample.

    Parameters
    ----------
    estimator : skorch net or Pipeline that ends in one
        Left as it is. Of one that was not made yet a copy is.
    X : samples (n, ...)
        As users pass them.

    Returns
    -------
    torch.dtype or None
        None where the net reads them as they are, or would not read them cast, either.

    Raises
    ------
    InvalidInputError
        If they are integers and the net reads numbers with a fraction alone: what their unit is, is not for us to say.
    """
    kind, net = _kind_of(X), final_of(estimator)
    piped = isinstance(estimator, Pipeline)
    if kind in ("", "float32") or checks.n_rows(X) == 0 or (piped and kind != "float64"):
        return None
    made = net if getattr(net, "initialized_", False) else _copy_of(net)
    if made is None:
        return None
    wanted = float_type(made.module_)
    if piped:
        # Steps before the net hand on the type of float that they are given.
        return None if wanted == torch.float64 else wanted
    row = take_rows(X, np.zeros(2, np.int64))
    if _reads(made, row) or not _reads(made, _as_type(row, wanted)):
        return None
    if "float" in kind:
        return wanted
    name = str(wanted).removeprefix("torch.")
    cast = f'X.astype("{name}")' if isinstance(X, np.ndarray) else f"X.to({wanted})"
    remedy = f"Cast pool and training set before the first query, and scale them as you mean it: {cast} / 255."
    raise checks.expected(f"samples of {name}, which the net computes in", kind, remedy)


def check_teachable(learner: Any, view: Any, X_pool: Any) -> None:
    """Check that what is chosen from a pool can be taught to a learner's net, before the work of choosing.

    Parameters
    ----------
    learner : modAL learner or estimator
        The object a strategy was called with; what cannot be taught is not looked at.
    view : NetView
        A view of it.
    X_pool : samples (n, ...)
        Checked.

    Raises
    ------
    InvalidInputError
        If they are integers and the net reads numbers with a fraction alone.

    Warns
    -----
    ModalNTKWarning
        If they are float64, the net is not, and the learner casts nothing.
    """
    teaches = callable(getattr(learner, "teach", None))
    if view.net is None or not (teaches or view.is_fitted):
        return
    wanted = wanted_type(view.estimator, X_pool)
    if wanted is not None and teaches and not hasattr(learner, "_readable"):
        name = str(wanted).removeprefix("torch.")
        found = f"The pool is {_kind_of(X_pool)} and the net computes in {name}"
        told = f"{found}, so {type(learner).__name__}.teach will fail"
        remedy = f'Cast it before: X_pool.astype("{name}"), or use modal_ntk.ActiveLearner.'
        warnings.warn(f"{told}. {remedy}", ModalNTKWarning, stacklevel=2)


def _copy_of(net: Any) -> Any:
    copy = clone(net).set_params(verbose=0, device="cpu", callbacks="disable")
    try:
        with torch.random.fork_rng():
            return copy.initialize()
    except Exception:  # noqa: BLE001 - what the net lacks is said when it is fitted
        return None


def _kind_of(X: Any) -> str:
    # Only single arrays of numbers: a dict may hold token ids, and a frame becomes an array on its way.
    if isinstance(X, np.ndarray) and X.dtype.kind in "fiu":
        return str(X.dtype)
    return str(X.dtype).removeprefix("torch.") if isinstance(X, torch.Tensor) else ""


def _as_type(X: Any, dtype: torch.dtype) -> Any:
    return X.to(dtype) if isinstance(X, torch.Tensor) else X.astype(str(dtype).removeprefix("torch."))


def _reads(net: Any, X: Any) -> bool:
    module = net.module_
    try:
        with no_trace(module), torch.no_grad():
            for batch in net.get_iterator(net.get_dataset(X), training=False):
                net.evaluation_step(batch, training=False)
    except Exception:  # noqa: BLE001 - whatever the module says to this type
        return False
    return True


@contextlib.contextmanager
def as_before_on_failure(*objects: Any) -> Iterator[None]:
    """Put back what estimators and learners hold if what is done inside fails.

    Parameters
    ----------
    *objects : estimators and learners
        Their attributes are put back, those of a Pipeline's steps too. What training changes itself gets its values
        back: a module that was given as an instance; with ``warm_start`` modules, optimisers, history, arrays.

    Yields
    ------
    None
        Nothing: fit inside.
    """
    parts = [part for thing in objects for part in _parts(thing)]
    held = [(part, _attributes(part)) for part in parts if hasattr(part, "__dict__")]
    states = [(thing, _state(thing)) for part in parts for thing in _trained_in_place(part)]
    try:
        yield
    except BaseException:
        for part, attributes in held:
            vars(part).clear()
            vars(part).update(attributes)
        for thing, state in states:
            # A lazy layer has no weights yet.
            thing.load_state_dict(state, **({"strict": False} if isinstance(thing, nn.Module) else {}))
        raise


def _attributes(part: Any) -> dict[str, Any]:
    if not getattr(part, "warm_start", False):
        return dict(vars(part))
    # Training goes on in what is there: arrays, trees, the history. Modules and optimisers stay themselves.
    themselves = {id(value): value for value in (part, *vars(part).values()) if isinstance(value, _WITH_STATE)}
    memo = {id(part): part, **themselves}
    return {name: _copied(value, memo) for name, value in vars(part).items()}


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001 - an open file or a lock, which stays the one that it is
        return value


def _trained_in_place(part: Any) -> list[Any]:
    module = getattr(part, "module", None)
    given = [module] if isinstance(module, nn.Module) else []
    if not getattr(part, "warm_start", False):
        return given
    return [*given, *(value for value in vars(part).values() if isinstance(value, _WITH_STATE) and value is not module)]


def _state(thing: Any) -> dict[str, Any]:
    if isinstance(thing, nn.Module):
        return {name: value.clone() for name, value in thing.state_dict().items() if not is_lazy(value)}
    return copy.deepcopy(thing.state_dict())


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, Pipeline):
        return [thing, *(step for _, step in thing.steps if not isinstance(step, str))]
    return [thing, *_parts(thing.estimator)] if isinstance(thing, WrappedNet) else [thing]
