"""Clauses on what a query must leave alone, and on what its picks may depend on."""

from __future__ import annotations

import contextlib
import pickle
from unittest import SkipTest

import numpy as np
import torch
from sklearn.base import clone

from modal_ntk import checks, nets
from modal_ntk.errors import UnmetNeedError
from modal_ntk.nets.traceless import seeded
from modal_ntk.testing.situations import ConvNet, device, images, skorch_net, taught
from modal_ntk.testing.traces import assert_same_state, generators_untouched, state_of, watched
from modal_ntk.testing.trial import Trial, chosen, clause, require, same_picks


@clause()
def repeats_itself_from_a_seed(trial: Trial) -> None:
    """The same seed gives the same picks, whatever the global generators hold; these are not touched."""
    situation = trial.home()
    with generators_untouched():
        first = situation.select(trial.fresh(), 5)
    with seeded(99):
        second = situation.select(trial.fresh(), 5)
    same_picks(first, second, "again from the same seed")


@clause("Generator", "RandomState")
def reads_a_generator_without_advancing_it(trial: Trial) -> None:
    """A generator given as random_state is the same afterwards, so the same object repeats the picks."""
    if "random_state" not in trial.strategy.get_params():
        raise SkipTest("the strategy has no random_state")
    made = {"Generator": np.random.default_rng, "RandomState": np.random.RandomState}[trial.case](5)
    situation = trial.home()
    copy = clone(trial.strategy).set_params(random_state=made)
    same_picks(situation.select(copy, 4), situation.select(copy, 4), "again from the same generator")


@clause("training mode", "evaluation mode", "gradients there", "after an error")
def leaves_no_trace(trial: Trial) -> None:
    """Parameters, buffers, modes, gradients, hooks and devices of the net are as they were, also after an error."""
    situation = trial.with_net()
    module = nets.NetView(situation.learner).module
    module.train(trial.case == "training mode")
    if trial.case == "gradients there":
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
    before = state_of(module)
    if trial.case == "after an error":
        with watched(module, broken=True), contextlib.suppress(Exception):
            situation.select(trial.fresh(), 4)
    else:
        situation.select(trial.fresh(), 4)
    assert_same_state(before, state_of(module))


@clause()
def does_not_care_for_the_nets_mode(trial: Trial) -> None:
    """A net left in training mode, dropout and BatchNorm included, gives the picks of one in evaluation mode."""
    situation = taught(skorch_net(ConvNet), images())
    picks = []
    for training in (False, True):
        nets.NetView(situation.learner).module.train(training)
        picks.append(chosen(trial.fresh(), situation))
    same_picks(picks[0], picks[1], "as in evaluation mode")


@clause()
def changes_nothing_of_the_users(trial: Trial) -> None:
    """Pool, labelled set, the learner's attributes and the strategy's own parameters are as they were."""
    situation = trial.home()
    data = {name: pickle.dumps(getattr(situation, name)) for name in ("X_pool", "X_labeled", "y_labeled")}
    attributes, copy = sorted(vars(situation.learner)), trial.fresh()
    parameters = repr(copy.get_params())
    situation.select(copy, 4)
    for name, old in data.items():
        require(pickle.dumps(getattr(situation, name)) == old, f"{name} as it was", "other values")
    now = sorted(vars(situation.learner))
    require(now == attributes, f"the learner's attributes {attributes}", now)
    require(repr(copy.get_params()) == parameters, f"the parameters {parameters}", repr(copy.get_params()))


@clause()
def keeps_nothing_of_an_earlier_model(trial: Trial) -> None:
    """A strategy that has served one model serves the next as an unused one would."""
    first = trial.with_net()
    backwards = nets.take_rows(first.X_pool, np.arange(checks.n_rows(first.X_pool))[::-1])
    second = first.but(learner=clone(nets.learners.estimator_of(first.learner)), X_pool=backwards)
    with seeded(7):
        second.learner.fit(first.X_labeled, first.y_labeled)
    used = trial.fresh()
    with contextlib.suppress(UnmetNeedError):
        first.select(used, 4)
        same_picks(second.select(trial.fresh(), 4), second.select(used, 4), "of an unused strategy")


@clause()
def lets_errors_through(trial: Trial) -> None:
    """An error inside the net comes out, itself or as the cause of what does; nothing is chosen instead."""
    situation = trial.with_net()
    module = nets.NetView(situation.learner).module
    with watched(module) as watch:
        situation.select(trial.fresh(), 4)
    if watch.n_passes == 0:
        raise SkipTest("the strategy does not run the net's last layer")
    with watched(module, broken=True):
        try:
            situation.select(trial.fresh(), 4)
        except Exception as error:  # noqa: BLE001 - which error it is, is what is asked
            chain = [error, error.__cause__, error.__context__]
            require(any("the net broke" in str(e) for e in chain), "the net's own error", repr(error))
        else:
            require(False, "the net's own error", "a selection")


@clause("net on the GPU", "pool on the GPU")
def works_on_the_gpu(trial: Trial) -> None:
    """A net on the GPU, or a pool that lies there, is served like any other."""
    where = device() if device() != "cpu" else "cuda"
    if where == "cuda" and not torch.cuda.is_available():
        raise SkipTest("no GPU")
    situation = taught(skorch_net(device=where))
    if trial.case == "pool on the GPU":
        situation = situation.but(X_pool=torch.from_numpy(situation.X_pool).to(where))
    chosen(trial.fresh(), situation)
