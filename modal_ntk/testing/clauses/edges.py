"""Clauses on what learners, nets and pools of other people are like."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

import modAL.models
import numpy as np
import skorch
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from modal_ntk import nets
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.testing.situations import N_LABELED, DropoutMLP, beside, blobs, learning, skorch_net, taught
from modal_ntk.testing.trial import Trial, check_form, chosen, clause, require, same_picks


@clause()
def hears_a_committee(trial: Trial) -> None:
    """The labels of a committee are its members': picks are those with these labels in hand."""
    X, y = blobs()
    taught_on = [(X[:rows], y[:rows]) for rows in (8, N_LABELED)]
    members = [nets.ActiveLearner(LogisticRegression(), trial.fresh(), *known) for known in taught_on]
    committee = modAL.models.Committee(members, trial.fresh())
    situation = beside(committee)
    told = chosen(trial.fresh(), situation)
    if told is not None:
        heard = chosen(trial.fresh(), situation.but(X_labeled=None, y_labeled=None))
        same_picks(told, heard, "with its labels in hand")


class Endless(Dataset):  # type: ignore[type-arg]
    """Answers for any number, as torch allows; its targets are large and mean nothing."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """Return a sample and a number."""
        return self.rows[i % len(self.rows)], 1000 * i


_DATASETS: dict[str, Callable[[np.ndarray], Any]] = {
    "of pairs": Endless,
    "of tensors": lambda X: TensorDataset(torch.from_numpy(X)),
    "a part of one": lambda X: Subset(Endless(np.concatenate([X, X])), range(len(X))),
    "a slice of one": lambda X: SliceDataset(Endless(X)),
}


@clause(*_DATASETS)
def reads_data_sets_like_arrays(trial: Trial) -> None:
    """A torch Dataset is read by its length and without its targets: the picks are those of the array."""
    hold = _DATASETS[trial.case]
    situation = taught(skorch_net(DropoutMLP))
    plain = chosen(trial.fresh(), situation)
    held = situation.but(X_pool=hold(situation.X_pool), X_labeled=hold(situation.X_labeled))
    same_picks(plain, chosen(trial.fresh(), held), "as for a NumPy array")


@clause()
def prepares_pool_and_labels_alike(trial: Trial) -> None:
    """The steps of a Pipeline that was not fitted yet see pool and labelled samples together, once."""
    X = blobs()[0] * np.float32(5) + np.arange(6, dtype=np.float32)
    prepared = beside(skorch_net(), StandardScaler().fit_transform(X))
    piped = beside(make_pipeline(StandardScaler(), skorch_net()), X)
    picks = [chosen(trial.fresh(), situation) for situation in (prepared, piped)]
    same_picks(picks[0], picks[1], "of the samples prepared together")


# Of such batches the pool fills no whole number, so that there is something to drop.
_BATCHES = {"iterator_valid__batch_size": 20}
_DISORDER: dict[str, dict[str, Any]] = {
    "shuffling": {"iterator_valid__shuffle": True},
    "dropping": {"iterator_valid__drop_last": True},
}


@clause(*_DISORDER)
def is_not_misled_by_the_validation_iterator(trial: Trial) -> None:
    """Every sample is read, in order, whatever the net's own loader does to validation sets."""
    plain = taught(skorch_net(DropoutMLP, **_BATCHES))
    first = chosen(trial.fresh(), plain)
    with warnings.catch_warnings():
        # skorch's own, about its predict, whenever such a net or a copy of it is made.
        warnings.filterwarnings("ignore", message="You set iterator_valid__shuffle")
        other = taught(skorch_net(DropoutMLP, **_BATCHES, **_DISORDER[trial.case]))
        other.learner.module_.load_state_dict(plain.learner.module_.state_dict())
        got = chosen(trial.fresh(), other)
    same_picks(first, got, "of the net without such a loader")


_NAMELESS: dict[str, dict[str, Any]] = {
    "classes not given": {"classes": None},
    "a plain NeuralNet": {"kind": skorch.NeuralNet},
}


@clause(*_NAMELESS)
def serves_nets_that_name_no_classes(trial: Trial) -> None:
    """A net whose labels name only some of its outputs so far, or that names none, is served."""
    X, y = blobs()
    kept = y > 0
    net = skorch_net(DropoutMLP, **_NAMELESS[trial.case])
    chosen(trial.fresh(), taught(net, X[kept], y[kept]))


@clause()
def takes_names_for_a_nets_classes(trial: Trial) -> None:
    """A net that a learner teaches by names gives the picks of the net that is taught by numbers."""
    _, y = blobs()
    picks = []
    for labels in (y, np.array(["ant", "bee", "cat"])[y]):
        net = skorch_net(DropoutMLP, classes=None)
        picks.append(chosen(trial.fresh(), learning(net, y=labels, query_strategy=trial.fresh())))
    same_picks(picks[0], picks[1], "as for class numbers")


@clause()
def says_that_a_net_is_stale(trial: Trial) -> None:
    """A net that another learner taught is not read without a word by one that has no labels."""
    situation = taught(skorch_net(DropoutMLP))
    stranger = nets.ActiveLearner(situation.learner, trial.fresh())
    cold = situation.but(learner=stranger, X_labeled=None, y_labeled=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            cold.select(trial.fresh(), 3)
        except UnmetNeedError as error:
            raise SkipTest("the strategy does not start from no labels") from error
    told = any(issubclass(w.category, ModalNTKWarning) and "clone" in str(w.message) for w in caught)
    require(told, "a ModalNTKWarning that says clone", [str(w.message) for w in caught])


@clause()
def takes_several_labels_or_says_that_it_does_not(trial: Trial) -> None:
    """For a net with several labels a sample it selects, or says that it is made for one."""
    X, _ = blobs()
    Y = (X[:, :3] > 0).astype(np.int64)
    net = skorch_net(DropoutMLP, kind=skorch.NeuralNet, criterion=nn.BCEWithLogitsLoss)
    situation = learning(net, y=Y, query_strategy=trial.fresh())
    try:
        selected = situation.select(trial.fresh(), 4)
    except (InvalidInputError, UnmetNeedError) as error:
        told = "label" in str(error) or isinstance(error, UnmetNeedError)
        require(told, "an error that speaks of labels", str(error))
    else:
        require(getattr(trial.strategy, "multilabel", False), "multilabel = True of a strategy that selects", "False")
        check_form(selected, 4, len(situation.X_pool))
