"""For every clause of the contract, strategies that break it and would pass for sound ones.

Those about what comes in are in ``mutants_inputs.py``; here are those about answers, traces and rounds.
Run as a script, it prints the table of clauses, mutants and what became of each: ``python tests/hunts/mutants.py``.
"""

from __future__ import annotations

import itertools
import warnings
from unittest import SkipTest

import numpy as np
import torch
from mutants_inputs import MUTANTS, breaks

from modal_ntk import Entropy, RandomSampling, Selection
from modal_ntk.errors import ContractError
from modal_ntk.testing import strategy_checks


@breaks("is_a_scikit_learn_estimator")
class ForgetsItsSeed(Entropy):
    def __init__(self, *, random_state=None):
        self.random_state = 0 if random_state is None else random_state


@breaks("is_a_scikit_learn_estimator")
class CannotBePickled(Entropy):
    def __init__(self, *, random_state=None):
        super().__init__(random_state=random_state)
        self.callback = lambda: None


@breaks("declares_its_needs")
class NeedsTheUnknown(Entropy):
    needs = frozenset({"probabilities", "electricity"})

    def _unmet(self, view, n_labeled):
        return []


@breaks("gives_as_many_as_asked")
class FallsShort(Entropy):
    def select(self, *args, **kwargs):
        selected = super().select(*args, **kwargs)
        return Selection(selected.indices[:5], selected.scores[:5], selected.info)


@breaks("gives_as_many_as_asked")
class RepeatsThePick(Entropy):
    def select(self, *args, **kwargs):
        selected = super().select(*args, **kwargs)
        return Selection(np.repeat(selected.indices[:1], len(selected.indices)), selected.scores, selected.info)


@breaks("gives_as_many_as_asked")
class ScoresAreNotNumbers(Entropy):
    def select(self, *args, **kwargs):
        selected = super().select(*args, **kwargs)
        return Selection(selected.indices, selected.scores * np.nan, selected.info)


@breaks("is_silent")
class Talks(Entropy):
    def _select(self, query):
        print("asked for", query.n_instances)
        return super()._select(query)


@breaks("repeats_itself_from_a_seed")
class DrawsFromTheGlobalGenerator(RandomSampling):
    def _select(self, query):
        return Selection(np.random.permutation(query.n_pool)[: query.n_instances], np.zeros(query.n_instances))


@breaks("reads_a_generator_without_advancing_it")
class AdvancesTheUsersGenerator(RandomSampling):
    def _select(self, query):
        draw = getattr(self.random_state, "permutation", query.rng.permutation)
        return Selection(draw(query.n_pool)[: query.n_instances], np.zeros(query.n_instances))


class OnTheNet(Entropy):
    """A base for those that reach past the view for the module."""

    def select(self, learner, *args, **kwargs):
        selected = super().select(learner, *args, **kwargs)
        module = getattr(learner, "module_", None)
        if module is not None:
            self.touch(module)
        return selected


@breaks("leaves_no_trace")
class LeavesEvaluationMode(OnTheNet):
    def touch(self, module):
        module.eval()


@breaks("leaves_no_trace")
class LeavesAHook(OnTheNet):
    def touch(self, module):
        module.register_forward_hook(lambda *_: None)


@breaks("leaves_no_trace")
class ClearsGradients(OnTheNet):
    def touch(self, module):
        module.zero_grad()


@breaks("leaves_no_trace")
class MovesAWeight(OnTheNet):
    def touch(self, module):
        with torch.no_grad():
            next(module.parameters()).mul_(1 + 1e-6)


@breaks("leaves_no_trace")
class TidiesOnlyAfterSuccess(Entropy):
    def select(self, learner, *args, **kwargs):
        module = getattr(learner, "module_", None)
        handle = None if module is None else module.register_forward_hook(lambda *_: None)
        selected = super().select(learner, *args, **kwargs)
        if handle is not None:
            handle.remove()
        return selected


@breaks("does_not_care_for_the_nets_mode")
class RunsTheNetAsItFindsIt(Entropy):
    def _query(self, learner, *args):
        # Before the view puts the module into evaluation mode.
        module = getattr(learner, "module_", None)
        self.was_training = module is not None and module.training
        return super()._query(learner, *args)

    def _select(self, query):
        selected = super()._select(query)
        return Selection(selected.indices[::-1].copy(), selected.scores) if self.was_training else selected


@breaks("keeps_nothing_of_an_earlier_model")
class RemembersItsFirstAnswer(Entropy):
    def _select(self, query):
        if not hasattr(self, "answer_"):
            self.answer_ = super()._select(query)
        return self.answer_


@breaks("lets_errors_through")
class FallsBackToRandom(Entropy):
    def _select(self, query):
        try:
            return super()._select(query)
        except (RuntimeError, ValueError):
            return Selection(np.arange(query.n_instances), np.zeros(query.n_instances))


@breaks("works_on_the_gpu")
class KnowsOnlyTheCPU(Entropy):
    def _select(self, query):
        if query.view.net is not None:
            next(query.view.module.parameters()).detach().numpy()
        np.asarray(query.X_pool)
        return super()._select(query)


@breaks("answers_modal_in_its_own_way")
class AnswersWithRows(Entropy):
    def __call__(self, learner, X_pool, n_instances=1, **labeled):
        indices = self.select(learner, X_pool, n_instances, **labeled).indices
        return indices, X_pool[indices], X_pool[indices]


@breaks("works_once_per_query")
class TriesAgain(Entropy):
    def __call__(self, *args, **kwargs):
        try:
            return super().__call__(*args, **kwargs)
        except Exception:  # noqa: BLE001 - the flaw itself
            return self.select(*args, **kwargs).indices


@breaks("works_once_per_query")
class AsksTwice(Entropy):
    def __call__(self, *args, **kwargs):
        self.select(*args, **kwargs)
        return super().__call__(*args, **kwargs)


@breaks("goes_on_through_rounds_of_teaching")
class PointsIntoTheFirstPool(Entropy):
    def select(self, learner, X_pool, n_instances=1, **labeled):
        self.n_pool_ = getattr(self, "n_pool_", len(X_pool))
        return Selection(self.n_pool_ - 1 - np.arange(n_instances), np.zeros(n_instances))


@breaks("says_that_a_net_is_stale")
class ReadsAStaleNet(Entropy):
    def select(self, *args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().select(*args, **kwargs)


@breaks("works_where_strategies_are_used")
class DrawsWithoutASeed(Entropy):
    draws = itertools.count()  # as from a generator without a seed, and never the same twice running

    def __init__(self):
        pass

    def _select(self, query):
        picks = (next(self.draws) + np.arange(query.n_instances)) % query.n_pool
        return Selection(picks, np.zeros(query.n_instances))


def verdict(clause, mutant):
    """Try a clause in all its cases: 'caught', 'missed', or 'not tried' with the reason."""
    reasons = []
    for check in strategy_checks():
        if check.clause.name == clause:
            try:
                check(mutant())
            except ContractError:
                return "caught"
            except SkipTest as reason:
                reasons.append(str(reason))
            else:
                reasons.append("")
    return "missed" if "" in reasons else f"not tried: {reasons[0]}"


if __name__ == "__main__":
    for clause, mutants in MUTANTS.items():
        for mutant in mutants:
            print(f"{clause:45} {mutant.__name__:30} {verdict(clause, mutant)}")
