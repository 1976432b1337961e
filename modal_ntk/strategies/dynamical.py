"""dynamicAL: query the samples that speed training up most, at the price of about one epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from modal_ntk import checks, features, kernels, nets, progress, selection
from modal_ntk.checks.parameters import COUNT, NOT_NEGATIVE, Constraints, StrOptions
from modal_ntk.environment.late import torch
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced
from modal_ntk.strategies.wrappers.sharding import over_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from modal_ntk.features.loss_gradients import Loss
    from modal_ntk.features.samples import Samples
    from modal_ntk.nets import NetView


ALONE = 0.99
"""Correlation of scores with products of gradients above which these rank the pool alone."""


@dataclass(eq=False, kw_only=True, repr=False)
class DynamicAL(QueryStrategy):
    """Query the samples whose loss gradients would speed training up most, pseudo-labelled by the net itself.

    How fast gradient descent lowers the loss of a set is the squared length of the set's summed loss gradient.
    A sample's score is what it adds to that: the squared length of its own gradient plus twice its product with
    the labelled set's.

    Parameters
    ----------
    batch : {"top", "greedy", "de_influence"}, default="top"
        How the batch follows from the scores. "top": the largest (the paper). "greedy": one at a time, each score
        counting also its product with the samples already picked, so that what is maximised is the exact gain of the
        batch. "de_influence": the authors' code; the largest `sub_batch` at a time, each score lowered by its
        product with the mean gradient of every sub-batch before.
    loss : {"cross_entropy", "mse"}, default="cross_entropy"
        Whose dynamics: of the cross-entropy, or of half the squared error of the logits to the one-hot label.
    influence : float, default=2.0
        Weight of the product with the labelled set's gradient; 2 makes scores exact gains, 0 leaves it out.
    sub_batch : int, default=100
        Samples picked at a time by "de_influence".
    parameters : str, sequence of str or None, default=None
        Parameters whose gradients count, by name or by name of the module that holds them, such as "head"; None
        takes all that require gradients.
    method : {"factored", "explicit"}, default="factored"
        "factored" never writes the per-sample gradients of known layers out; "explicit" writes all of them, by
        BackPACK where it is proved right and by torch.func elsewhere.
    memory_budget : int, default=2**30
        Bytes for what is held beside net and samples. Picking in several steps keeps the products of all pairs
        of pool samples if they fit and steps are many, and otherwise reads the pool once more for every step.
    random_state : int, numpy generator or None, default=None
        Seed of the order of equal scores.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Wang et al., "Deep Active Learning by Leveraging Training Dynamics" (NeurIPS 2022), the score of its equation 15
    with g the gradient of the loss at the predicted class (the lowest where several tie)::

        score(u) = |g(u)|^2 + 2 g(u) . sum of g over the labelled set

    Gradients are those of the net in evaluation mode, exact for each sample under BatchNorm too, where the authors'
    code takes the batch's mean. Lengths and products come from one forward and one backward pass over the pool; the
    memory needed does not grow with the pool. The paper continues training between rounds instead of starting anew:
    ``modal_ntk.bench.SimulatedActiveLearning(..., reinitialise=False)``.

    Where a sample has several labels, g is the gradient of the binary cross-entropy summed over them, and the
    pseudo-labels are those more probable than not.

    The labelled gradient is small once the labelled set is learnt, if training has settled; after large last steps it
    is their noise, and may outweigh all single gradients. Where nine in ten labels are learnt and the scores follow
    the products alone (a correlation above 0.99, ``info["influence_correlation"]``), a warning says so. The authors
    train at a rate of 2e-4.

    Scores are the values by which samples were picked; the larger the better. ``info`` holds the training dynamics
    of the labelled set, ``dynamics``; those after adding the batch under its pseudo-labels, ``dynamics_after``; the
    chosen samples' pseudo-labels as columns of the logits (zeros and ones for several labels), ``pseudo_labels``; how
    each parameter's gradient was read, ``routes``; for several steps, ``products``, whether from a "kernel" or
    "passes"; and the seconds by stage.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetClassifier
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Linear(2, 2, bias=False), criterion=torch.nn.CrossEntropyLoss, classes=[0, 1]
    ... ).initialize()
    >>> _ = torch.nn.init.eye_(net.module_.weight)
    >>> pool = np.array([[0.5, 0.4], [2.0, -1.0], [0.1, 0.1]], dtype="float32")
    >>> labeled = {"X_labeled": np.eye(2, dtype="float32"), "y_labeled": [0, 1]}
    >>> selected = DynamicAL().select(net, pool, 2, **labeled)
    >>> selected.indices.tolist(), selected.scores.round(3).tolist()
    ([0, 1], [0.236, 0.176])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradients", "labels"})
    multilabel: ClassVar[bool] = True
    _parameter_constraints: ClassVar[Constraints] = {
        "batch": [StrOptions({"top", "greedy", "de_influence"})],
        "loss": [StrOptions({"cross_entropy", "mse"})],
        "influence": [NOT_NEGATIVE],
        "sub_batch": [COUNT],
        "method": [StrOptions({"factored", "explicit"})],
        "memory_budget": [COUNT],
    }

    batch: Literal["top", "greedy", "de_influence"] = "top"
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    influence: float = 2.0
    sub_batch: int = 100
    parameters: str | Sequence[str] | None = None
    method: Literal["factored", "explicit"] = "factored"
    memory_budget: int = 2**30

    def _select(self, query: Query) -> Selection:
        loss = self._loss(query)
        reader = _Reader(query, self, loss)
        with reader.gradients.evaluating():
            with progress.stage("labelled"):
                direction = reader.labelled_sum()
            parts = over_pool(query, partial(_shard_scores, strategy=self, loss=loss, direction=direction))
            labels, squared, cross = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:3])
            scores = squared + self.influence * cross
            reader.take_labels(labels)
            with progress.stage("picks", query.n_instances):
                indices, values, how = self._pick(query, reader, scores)
            added = reader.sum_of(indices)
        correlation = _correlation(scores, cross) if self.influence else 0.0
        if correlation > ALONE and _is_learnt(query):
            _warn_of_noise(correlation)
        info = {
            "influence_correlation": correlation,
            "dynamics": _squared_norm(direction),
            "dynamics_after": _squared_norm({name: g + added[name] for name, g in direction.items()}),
            "pseudo_labels": labels[indices],
            "routes": parts[0][3],
            **how,
        }
        return Selection(indices, values, info)

    def _loss(self, query: Query) -> Loss:
        if not query.has_several_labels:
            return self.loss
        if self.loss != "cross_entropy":
            remedy = 'Pass loss="cross_entropy": the binary one of every label then.'
            raise checks.expected("the cross-entropy as loss for several labels of one sample", self.loss, remedy)
        return "binary_cross_entropy"

    def _pick(self, query: Query, reader: _Reader, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
        size = {"top": query.n_instances, "greedy": 1, "de_influence": self.sub_batch}[self.batch]
        if size >= query.n_instances:
            indices = selection.top_b(scores, query.n_instances, rng=query.rng)
            return indices, scores[indices], {}
        products, how = reader.pool_products(query.n_instances / size)
        scores, values = scores.copy(), np.zeros(query.n_instances)
        picked: list[np.ndarray] = []
        for start in range(0, query.n_instances, size):
            chosen = selection.top_b(scores, min(size, query.n_instances - start), rng=query.rng)
            values[start : start + len(chosen)] = scores[chosen]
            picked.append(chosen)
            progress.advance(len(chosen))
            if start + size < query.n_instances:
                # The exact gain grows by twice the product; the authors' rule falls by that with the mean.
                weight = 2.0 if self.batch == "greedy" else -1.0 / len(chosen)
                scores += weight * products(chosen)
                scores[chosen] = -np.inf
        return np.concatenate(picked), values, {"products": how}


class _Reader:
    # Reads labelled set and pool batch by batch; of the pool it keeps scores and pseudo-labels alone.
    def __init__(self, query: Query, strategy: DynamicAL, loss: Loss) -> None:
        self.query, self.loss, self.budget = query, loss, strategy.memory_budget
        self.gradients = _loss_gradients(query.view, query.X_pool, strategy, loss)
        self.labels: Tensor

    def labelled_sum(self) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        columns = self.query.y_labeled
        for start, batch in self._batches(self.query.X_labeled):
            if start == 0 and not self.query.has_several_labels:
                n_outputs = self.gradients.net.logits(batch[:1]).shape[1]
                columns = nets.class_columns(self.query.view, self.query.y_labeled, n_outputs)
            _add(total, self.gradients.sum(batch, columns[start : start + len(batch)]))
        return total

    def take_labels(self, labels: np.ndarray) -> None:
        # The pool's pseudo-labels, for what is read of it later.
        self.labels = torch.from_numpy(labels).to(self.gradients.net.device)

    def sum_of(self, rows: np.ndarray) -> dict[str, Tensor]:
        # Summed loss gradient of some pool samples, under their pseudo-labels.
        total: dict[str, Tensor] = {}
        wanted = np.sort(rows)
        for start, batch in self._batches(self.query.X_pool):
            inside = wanted[(wanted >= start) & (wanted < start + len(batch))]
            if len(inside) or not total:
                _add(total, self.gradients.sum(batch[inside - start], self.labels[inside]))
        return total

    def pool_products(self, n_steps: float) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
        # From picks to the product of every pool sample's gradient with the sum of theirs.
        n = self.query.n_pool
        # For LeNet-5 a kernel of 8,000 samples cost seven passes over them; nets with more parameters pay more.
        # Of several labels there is no kernel.
        several = self.query.has_several_labels
        if several or 200 * n_steps < n or n * n * self.gradients.net.dtype.itemsize > self.budget:
            return self._products_by_pass, "passes"
        module = nets.logit_module(self.query.view, self.query.X_pool)
        x = features.concatenated([batch for _, batch in self._batches(self.query.X_pool)])
        kind: Any = "loss" if self.loss == "cross_entropy" else "mse"
        kernel = kernels.empirical_ntk(module, x, kind=kind, labels=self.labels, memory_budget=self.budget)
        return lambda rows: kernel[:, rows].double().sum(1).cpu().numpy(), "kernel"

    def _products_by_pass(self, rows: np.ndarray) -> np.ndarray:
        direction = self.sum_of(rows)
        products = [
            self.gradients.products(batch, direction, self.labels[start : start + len(batch)])
            for start, batch in self._batches(self.query.X_pool)
        ]
        return torch.cat(products).double().cpu().numpy()

    def _batches(self, X: Any) -> Iterator[tuple[int, Samples]]:
        # Each with the number of its first row.
        start = 0
        for batch in nets.input_batches(self.query.view, X):
            samples = self.gradients.net.batch(batch)
            yield start, samples
            start += len(samples)


def _loss_gradients(view: NetView, X: Any, strategy: DynamicAL, loss: Loss) -> features.LossGradients:
    module = (nets.label_logit_module if loss == "binary_cross_entropy" else nets.logit_module)(view, X)
    _restrict(view.module, strategy.parameters)
    explicit = strategy.method == "explicit"
    return features.LossGradients(module, loss=loss, explicit=explicit, memory_budget=strategy.memory_budget)


def _shard_scores(
    view: NetView,
    X: Any,
    number: int,  # noqa: ARG001 - nothing is drawn
    *,
    strategy: DynamicAL,
    loss: Loss,
    direction: dict[str, Tensor],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, str]]:
    # Pseudo-labels of some pool samples, squared lengths, products with the direction; the route of each parameter.
    gradients = _loss_gradients(view, X, strategy, loss)
    with gradients.evaluating():
        batches = (gradients.net.batch(batch) for batch in nets.input_batches(view, X))
        parts = [gradients.measure(batch, direction) for batch in batches]
    columns = ([getattr(part, name) for part in parts] for name in ("labels", "squared_norms", "products"))
    labels, squared, products = (torch.cat(column).cpu() for column in columns)
    routes = {} if gradients.routes is None else gradients.routes.by_name
    by_name = {name.removeprefix("module."): route for name, route in routes.items()}
    return labels.numpy(), squared.double().numpy(), products.double().numpy(), by_name


def _correlation(scores: np.ndarray, cross: np.ndarray) -> float:
    # Of what does not vary there is none.
    return float(np.corrcoef(scores, cross)[0, 1]) if scores.std() > 0 and cross.std() > 0 else 0.0


def _is_learnt(query: Query) -> bool:
    # Whether nine in ten labelled samples are predicted as they are labelled, so that their gradients should be small.
    if query.has_several_labels:
        right = (query.view.label_probabilities(query.X_labeled) > 0.5).numpy() == query.y_labeled
        return bool(right.mean() >= 0.9)
    logits = query.view.logits(query.X_labeled)
    columns = nets.class_columns(query.view, query.y_labeled, logits.shape[1])
    return bool((logits.argmax(dim=1).numpy() == columns).mean() >= 0.9)


def _warn_of_noise(correlation: float) -> None:
    message = (
        "DynamicAL: the product with the labelled set's summed gradient ranks the pool alone (correlation with the "
        f"scores {correlation:.3f}), although the labelled set is learnt: it is what the last steps left. "
        "Train on at a lower rate until it settles, or use influence=0."
    )
    warnings.warn(message, ModalNTKWarning, stacklevel=5)


def _restrict(module: nn.Module, names: str | Sequence[str] | None) -> None:
    # Inside the view's own context, which puts every flag back.
    if names is None:
        return
    trainable = [name for name, p in module.named_parameters() if p.requires_grad]
    chosen: set[str] = set()
    for prefix in [names] if isinstance(names, str) else names:
        found = {name for name in trainable if f"{name}.".startswith(f"{prefix}.")}
        if not found:
            remedy = "Names come from module.named_parameters(); frozen parameters have no gradient."
            raise checks.unknown_name("trainable parameter", prefix, trainable, remedy)
        chosen |= found
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in chosen)


def _add(total: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for name, gradient in more.items():
        total[name] = total[name] + gradient if name in total else gradient


def _squared_norm(gradient: dict[str, Tensor]) -> float:
    return sum(float(g.double().square().sum()) for g in gradient.values())


dynamical = DynamicAL()
modal_ntk_strategies = announced(
    dynamical,
    "largest gain in training dynamics: own gradient's length, product with the labelled set's",
    "dynamicAL (Wang et al., NeurIPS 2022)",
)
