"""Strategies that break what the contract says of pools, labels and learners, entered by clause; see ``mutants.py``."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from modal_ntk import CoreSet, Entropy, RandomSampling, Selection, checks
from modal_ntk.errors import UnmetNeedError

MUTANTS: dict[str, list[type]] = {}


def breaks(clause):
    """Enter a class as a mutant for a clause."""

    def enter(mutant):
        MUTANTS.setdefault(clause, []).append(mutant)
        return mutant

    return enter


@breaks("works_for_the_learner_or_says_what_it_lacks")
class TakesEveryLearnerForANet(Entropy):
    def _select(self, query):
        next(query.view.estimator.module_.parameters())
        return super()._select(query)


@breaks("works_for_the_learner_or_says_what_it_lacks")
class RefusesWithoutAReason(Entropy):
    def _unmet(self, view, n_labeled):
        return [] if view.net is not None else ["labels"]


@breaks("takes_pools_in_any_container")
class ReadsMemoryNotRows(Entropy):
    def _select(self, query):
        rows = np.asarray(query.X_pool)
        firsts = rows.ravel(order="K").reshape(rows.shape)[:, 0]
        indices = np.argsort(firsts)[: query.n_instances]
        return Selection(indices, firsts[indices].astype(float))


@breaks("takes_labels_of_any_kind")
class TakesLabelsForNumbers(Entropy):
    def _select(self, query):
        start = int(query.y_labeled[0]) if query.n_labeled else 0
        indices = (start + np.arange(query.n_instances)) % query.n_pool
        return Selection(indices, np.zeros(query.n_instances))


@breaks("tells_duplicates_apart")
class ChoosesAmongDistinctRows(Entropy):
    def _select(self, query):
        _, firsts = np.unique(np.asarray(query.X_pool), axis=0, return_index=True)
        indices = np.sort(firsts)[: query.n_instances]
        return Selection(indices, np.zeros(len(indices)))


@breaks("changes_nothing_of_the_users")
class SortsThePool(Entropy):
    def _select(self, query):
        selected = super()._select(query)
        query.X_pool.sort(axis=0)
        return selected


@breaks("refuses_bad_input_before_any_work")
class ChecksAfterTheWork(Entropy):
    def select(self, learner, X_pool, n_instances=1, **labeled):
        super().select(learner, np.nan_to_num(X_pool, posinf=0), 1)
        return super().select(learner, X_pool, n_instances, **labeled)


@breaks("refuses_bad_input_before_any_work")
class RaisesItsOwn(Entropy):
    def select(self, learner, X_pool, n_instances=1, **labeled):
        if n_instances < 1:
            raise ValueError("no")
        return super().select(learner, X_pool, n_instances, **labeled)


@breaks("refuses_bad_labels_before_any_work")
class MakesAClassOfWhatIsMissing(Entropy):
    def select(self, learner, X_pool, n_instances=1, *, X_labeled=None, y_labeled=None):
        if y_labeled is not None:
            y_labeled = [str(label) for label in y_labeled]
        return super().select(learner, X_pool, n_instances, X_labeled=X_labeled, y_labeled=y_labeled)


@breaks("refuses_bad_labels_before_any_work")
class LeavesOutWhatHasNoLabel(Entropy):
    def select(self, learner, X_pool, n_instances=1, *, X_labeled=None, y_labeled=None):
        if y_labeled is not None and X_labeled is not None:
            known = pd.Series(y_labeled, dtype=object).notna().to_numpy()
            X_labeled, y_labeled = X_labeled[known], [y for y, kept in zip(y_labeled, known, strict=True) if kept]
        return super().select(learner, X_pool, n_instances, X_labeled=X_labeled, y_labeled=y_labeled)


@breaks("starts_from_nothing_or_says_who_does")
class GivesNoWayOut(Entropy):
    def _unmet(self, view, n_labeled):
        if super()._unmet(view, n_labeled):
            raise UnmetNeedError("fit the model first")
        return []


@breaks("hears_a_committee")
class IsDeafToACommittee(CoreSet):
    def _labeled_set(self, learner, X_labeled, y_labeled):
        if X_labeled is None and hasattr(learner, "learner_list"):
            return None, np.zeros(0)
        return super()._labeled_set(learner, X_labeled, y_labeled)


@breaks("reads_data_sets_like_arrays")
class ReadsTargets(CoreSet):
    def _select(self, query):
        if checks.is_dataset(query.X_pool):
            item = query.X_pool[0]
            firsts = np.array([query.X_pool[i][1] for i in range(query.n_pool)]) if len(item) == 2 else np.zeros(1)
            indices = np.argsort(-firsts.ravel())[: query.n_instances]
            return Selection(indices, np.zeros(len(indices)))
        return super()._select(query)


@breaks("reads_data_sets_like_arrays")
class KnowsOnlyArrays(Entropy):
    def _select(self, query):
        query.X_pool.shape  # noqa: B018 - the flaw itself
        return super()._select(query)


@breaks("prepares_pool_and_labels_alike")
class PreparesEachByItself(CoreSet):
    def _select(self, query):
        query.view._fitted_earlier = None
        pool = query.view.prepare(query.X_pool)
        query.view._fitted_earlier = None
        known = query.view.prepare(query.X_labeled)
        distances = np.linalg.norm(pool[:, None] - known[None], axis=2).min(axis=1)
        indices = np.argsort(-distances)[: query.n_instances]
        return Selection(indices, distances[indices].astype(float))


@breaks("is_not_misled_by_the_validation_iterator")
class TrustsTheNetsLoader(Entropy):
    def _select(self, query):
        net = query.view.net
        p = query.view.probabilities(query.X_pool) if net is None else torch.from_numpy(net.predict_proba(query.X_pool))
        scores = self._uncertainty(p.double()).numpy()
        indices = np.argsort(-scores)[: query.n_instances]
        return Selection(indices, scores[indices])


@breaks("serves_nets_that_name_no_classes")
class CountsOnNamedClasses(Entropy):
    def _select(self, query):
        query.view.classes[query.view.predictions(query.X_pool).numpy()]
        return super()._select(query)


@breaks("takes_names_for_a_nets_classes")
class ReadsNamesAsNumbers(Entropy):
    def _select(self, query):
        start = len(str(query.y_labeled[1]))
        indices = (start + np.arange(query.n_instances)) % query.n_pool
        return Selection(indices, np.zeros(query.n_instances))


@breaks("takes_several_labels_or_says_that_it_does_not")
class TakesTheFirstLabel(RandomSampling):
    multilabel = False

    def _labeled_set(self, learner, X_labeled, y_labeled):
        X_labeled, y_labeled = super()._labeled_set(learner, X_labeled, y_labeled)
        return X_labeled, y_labeled[:, 0] if y_labeled.ndim > 1 else y_labeled


@breaks("works_where_strategies_are_used")
class ChoosesOnlyFromLargePools(Entropy):
    def _select(self, query):
        if query.n_pool < 20:
            raise ValueError("too few to bother")
        return super()._select(query)


@breaks("takes_pools_that_are_nearly_nothing")
class DividesByTheLength(Entropy):
    def _select(self, query):
        X = np.asarray(query.X_pool, float).reshape(query.n_pool, -1)
        with np.errstate(invalid="ignore"):
            cosine = X[:, 0] / np.linalg.norm(X, axis=1)
        indices = np.argsort(cosine)[::-1][: query.n_instances].copy()
        return Selection(indices, cosine[indices])


@breaks("takes_pools_that_are_nearly_nothing")
class DividesByTheSpread(Entropy):
    def _select(self, query):
        X = np.asarray(query.X_pool, float).reshape(query.n_pool, -1)
        with np.errstate(invalid="ignore"):
            scores = (X - X.mean(0)).sum(1) / X.std()
        return Selection(np.arange(query.n_instances), scores[: query.n_instances])
