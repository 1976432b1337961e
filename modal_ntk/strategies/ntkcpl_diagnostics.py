"""How far NTKCPL's estimate can be trusted, on a pool whose labels are all known.

The estimate replaces two things: the network by its kernel's regression, and true labels by cluster pseudo-labels.
Each replacement has an error of its own (equation 5), and that of the pseudo-labels has two causes (equation 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modal_ntk import checks, kernels, nets
from modal_ntk.environment.late import torch
from modal_ntk.strategies.ntkcpl import NTKCPL

if TYPE_CHECKING:
    from modal_ntk.strategies.ntkcpl import Belief


@dataclass(frozen=True)
class PseudoLabelError:
    """How often the risk against pseudo-labels and the risk against true labels disagree, and why.

    Parameters
    ----------
    right_called_wrong : float
        Fraction of rows that the regression on true labels gets right, but the one on pseudo-labels does not
        (the paper's P_fnf).
    wrong_called_right : float
        Fraction of rows the other way round (P_nff).
    over_clustered : float
        Fraction of rows called wrong only because their class has several clusters: own cluster and predicted
        cluster both belong to the row's class. A part of `right_called_wrong`.
    impure : float
        Fraction of rows called right only because their cluster belongs to another class. A part of
        `wrong_called_right`.
    mapped_agreement : float
        Fraction of rows where the predicted cluster's class is what the regression on true labels predicts: the
        claim that the split rests on.
    """

    right_called_wrong: float
    wrong_called_right: float
    over_clustered: float
    impure: float
    mapped_agreement: float

    @property
    def total(self) -> float:
        """Fraction of rows where the two risks disagree, error_CPL."""
        return self.right_called_wrong + self.wrong_called_right

    @property
    def explained(self) -> float:
        """Part of the total that over-clustering and impurity account for; one where there is no error."""
        return (self.over_clustered + self.impure) / self.total if self.total else 1.0


@dataclass(frozen=True)
class Diagnosis:
    """What NTKCPL believes before a query, beside what is true; risks are fractions of rows predicted wrongly.

    Parameters
    ----------
    n_labeled, n_clusters, n_rows : int
        Labels, pseudo-labels, and rows counted over.
    estimated_risk : float
        Of the kernel's regression on pseudo-labels, against pseudo-labels: what NTKCPL minimises.
    kernel_risk : float
        Of the kernel's regression on true labels, against true labels.
    network_risk : float
        Of the trained network, against true labels.
    agreement : float
        Fraction of rows where regression on true labels and network predict the same class.
    kernel_error : float
        Fraction of rows that one of these two gets right and the other wrong, error_NTK.
    estimate_error : float
        Fraction of rows that the estimate calls right and the network gets wrong, or the other way round: the left
        side of equation 5, at most `kernel_error` plus ``pseudo_label_error.total``.
    pseudo_label_error : PseudoLabelError
        Its split.
    """

    n_labeled: int
    n_clusters: int
    n_rows: int
    estimated_risk: float
    kernel_risk: float
    network_risk: float
    agreement: float
    kernel_error: float
    estimate_error: float
    pseudo_label_error: PseudoLabelError

    @property
    def estimated_coverage(self) -> float:
        """One less the estimated risk."""
        return 1 - self.estimated_risk

    @property
    def true_coverage(self) -> float:
        """One less the network's risk."""
        return 1 - self.network_risk


def pseudo_label_error(
    clusters: Any, classes: Any, predicted_clusters: Any, predicted_classes: Any
) -> PseudoLabelError:
    """Split the disagreement between risk on pseudo-labels and risk on true labels by its causes.

    Parameters
    ----------
    clusters : array-like (n,), int
        Pseudo-label of every row, 0 to k-1.
    classes : array-like (n,)
        True label of every row, of any label kind.
    predicted_clusters : array-like (n,), int
        What the kernel's regression on pseudo-labels predicts.
    predicted_classes : array-like (n,)
        What the same on true labels predicts.

    Returns
    -------
    PseudoLabelError
        Fractions of all rows.

    Raises
    ------
    InvalidInputError
        If lengths differ, or there is no row.

    Notes
    -----
    NTKCPL, equation 7 and appendix 6.1. A cluster belongs to its most frequent true class, the first in sorting order
    among equals. The paper infers over-clustering from the regression's being right; here both clusters are looked
    up, so that what its claim does not cover is left unexplained.

    Examples
    --------
    >>> error = pseudo_label_error([0, 0, 0, 1, 1], list("aaabb"), [0, 0, 1, 1, 1], list("aaabb"))
    >>> error.right_called_wrong, error.over_clustered     # one class, one cluster: not over-clustered
    (0.2, 0.0)
    """
    own = checks.check_rows("clusters", clusters, None)
    found = checks.check_rows("predicted_clusters", predicted_clusters, None, length=len(own))
    if len(own) == 0:
        raise checks.expected("clusters of at least one row", "none", "Pass the cluster of every row.")
    labels = [checks.check_labels(values, len(own)) for values in (classes, predicted_classes)]
    y, predicted = np.unique(np.concatenate(labels), return_inverse=True)[1].reshape(2, -1)
    belongs = _majority(own, y, int(max(own.max(), found.max())) + 1)
    called_right, right = found == own, predicted == y
    hidden, missed = right & ~called_right, ~right & called_right
    return PseudoLabelError(
        right_called_wrong=float(hidden.mean()),
        wrong_called_right=float(missed.mean()),
        over_clustered=float((hidden & (belongs[own] == y) & (belongs[found] == y)).mean()),
        impure=float((missed & (belongs[own] != y)).mean()),
        mapped_agreement=float((belongs[found] == predicted).mean()),
    )


def _majority(clusters: np.ndarray, classes: np.ndarray, n_clusters: int) -> np.ndarray:
    # Most frequent class of every cluster; none, -1, for a cluster without rows.
    table = np.zeros((n_clusters, int(classes.max()) + 1), np.int64)
    np.add.at(table, (clusters, classes), 1)
    return np.where(table.any(axis=1), table.argmax(axis=1), -1)


def diagnose(strategy: NTKCPL, learner: Any, X: Any, y: Any, labeled: Any, n_instances: int) -> Diagnosis:
    """Compare what NTKCPL would believe before a query with the truth.

    Parameters
    ----------
    strategy : NTKCPL
        Its parameters and seed decide pseudo-labels, candidates, kernel and regression, exactly as in a query.
    learner : modAL learner or estimator
        Trained on the labelled rows; read, never changed.
    X : samples (n, ...)
        All rows, labelled and not.
    y : array-like (n,)
        Their true labels, of any kind the learner predicts.
    labeled : array-like (l,), int
        Rows the learner was trained on; at least one.
    n_instances : int
        Size of the query to come, on which the number of pseudo-labels depends.

    Returns
    -------
    Diagnosis
        Risks, agreement, and the errors' split.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.
    UnmetNeedError
        If the learner lacks what the strategy needs.

    Notes
    -----
    NTKCPL, sections 2, 3.3 and 6.1. Both regressions start from the same head, whose outputs are as many as there are
    pseudo-labels or classes, whichever are more; each takes its first columns. Where classes are no more than
    pseudo-labels, the estimated risk is the one the query starts from.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_digits(n_class=5, return_X_y=True)
    >>> model = LogisticRegression(max_iter=500).fit(X[:40], y[:40])
    >>> found = diagnose(NTKCPL(variant="self", random_state=0), model, X, y, np.arange(40), 40)
    >>> found.n_clusters, found.n_rows, found.estimate_error <= found.kernel_error + found.pseudo_label_error.total
    (40, 901, True)
    """
    n = checks.n_rows(X)
    rows = checks.check_rows("labeled", labeled, n)
    if len(rows) == 0:
        raise checks.expected("labelled rows", "none", "Before the first label there is no network to compare with.")
    truth = checks.check_labels(y, n)
    order = np.concatenate([rows, np.setdiff1d(np.arange(n), rows)])
    known, rest = (nets.take_rows(X, part) for part in np.split(order, [len(rows)]))
    checks.check_parameters(strategy)
    query = strategy._query(learner, rest, n_instances, known, truth[rows])
    strategy._check_query(query)
    with query.view.no_trace():
        belief = strategy._belief(query, n_outputs=len(np.unique(truth)))
        counted = order[belief.rows]
        predicted = np.asarray(query.view.estimator.predict(nets.take_rows(X, counted)))
    return _compared(belief, strategy, truth[counted], predicted, len(rows))


def _compared(belief: Belief, strategy: NTKCPL, y: np.ndarray, network: np.ndarray, n_labeled: int) -> Diagnosis:
    names, columns = np.unique(y, return_inverse=True)
    clusters = belief.targets
    found = _regression(belief, strategy, clusters, int(belief.clusters.labels.max()) + 1, n_labeled)
    kernel = names[_regression(belief, strategy, columns, len(names), n_labeled)]
    estimate, kernel_right, network_right = found == clusters, kernel == y, network == y
    return Diagnosis(
        n_labeled=n_labeled,
        n_clusters=len(np.unique(belief.clusters.labels)),
        n_rows=len(y),
        estimated_risk=float((~estimate).mean()),
        kernel_risk=float((~kernel_right).mean()),
        network_risk=float((~network_right).mean()),
        agreement=float((kernel == network).mean()),
        kernel_error=float((kernel_right != network_right).mean()),
        estimate_error=float((estimate != network_right).mean()),
        pseudo_label_error=pseudo_label_error(clusters, y, found, kernel),
    )


def _regression(belief: Belief, strategy: NTKCPL, targets: np.ndarray, n_outputs: int, n_labeled: int) -> np.ndarray:
    # Column predicted at every row after training on the labelled ones, which come first.
    kernel, known = belief.kernel, slice(None, n_labeled)
    f0 = None if belief.f0 is None else belief.f0[:, :n_outputs]
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(targets[known]), n_outputs).to(kernel)
    outputs = kernels.ntk_regression(
        kernel[known, known], kernel[:, known], one_hot,
        f0_train=None if f0 is None else f0[known], f0_test=f0, time=strategy.time, rel_jitter=strategy.rel_jitter,
    )  # fmt: skip
    return outputs.argmax(dim=1).cpu().numpy()
