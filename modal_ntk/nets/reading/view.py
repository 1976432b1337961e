"""What a strategy may ask of a learner, whatever the estimator behind it.

Everything read comes back as a CPU tensor with one row per sample; batches come from skorch's own iterator,
so that a user's data set, transforms, batch size and device hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import skorch
import torch
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetBinaryClassifier
from skorch.dataset import unpack_data
from torch import Tensor, nn

from modal_ntk import checks, progress
from modal_ntk.errors import UnmetNeedError
from modal_ntk.hooks import NEEDS
from modal_ntk.nets.datasets import as_pairs, in_order, samples_of
from modal_ntk.nets.encoded import LabelEncoded
from modal_ntk.nets.learners import estimator_of
from modal_ntk.nets.multilabel import (
    MultiLabelNet,
    from_outputs,
    gives_a_matrix,
    has_label_loss,
    stacked_columns,
)
from modal_ntk.nets.reading.dropout import has_dropout
from modal_ntk.nets.reading.outputs import (
    as_matrix,
    cast,
    flat,
    on_simplex,
    read_by,
    sums_to_one,
    trained_by_squared_error,
    unwarned,
)
from modal_ntk.nets.rows import for_a_net, stack_rows, take_rows
from modal_ntk.nets.traceless import no_trace

Layer = str | Callable[[Any], Any] | None


class NetView:
    """Read-only view of a learner: probabilities, logits, embeddings, classes, module.

    Parameters
    ----------
    learner : modAL learner, skorch net, scikit-learn Pipeline or classifier
        A Pipeline is read through its earlier steps; what follows speaks of its last one.

    Attributes
    ----------
    estimator : estimator
        What the learner trains.
    net : skorch.NeuralNet or None
        The skorch net, if there is one.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> view = NetView(LogisticRegression().fit([[0.0], [1.0]], ["no", "yes"]))
    >>> view.classes.tolist(), view.predictions(np.array([[-5.0], [5.0]])).tolist()
    (['no', 'yes'], [0, 1])
    """

    def __init__(self, learner: Any) -> None:
        found = estimator_of(learner)
        if isinstance(found, type):
            remedy = "Make an instance of it."
            raise checks.expected("a learner or an estimator", f"the class {found.__name__}", remedy)
        self._encoded = found if isinstance(found, LabelEncoded) else None
        self.estimator = found.estimator if isinstance(found, (LabelEncoded, MultiLabelNet)) else found
        piped = isinstance(self.estimator, Pipeline)
        self._earlier = list(self.estimator.steps[:-1]) if piped else []
        self._final = self.estimator.steps[-1][1] if piped else self.estimator
        self.net = self._final if isinstance(self._final, skorch.NeuralNet) else None
        self._fitted_earlier: Any = None

    @property
    def is_fitted(self) -> bool:
        """Whether the estimator can answer: a net has weights, a classifier was fitted."""
        if self.net is not None:
            return bool(getattr(self.net, "initialized_", False))
        try:
            check_is_fitted(self._final)
        except (NotFittedError, TypeError):
            return False
        return True

    @property
    def module(self) -> nn.Module:
        """The torch module as it stands; it is replaced at every fit, so it is never kept."""
        module = self._require_net("net").module_
        return getattr(module, "_orig_mod", module)

    @property
    def device(self) -> torch.device:
        """Where the module's parameters live; the CPU without a net."""
        parameter = next(self.module.parameters(), None) if self.net is not None and self.is_fitted else None
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def classes(self) -> np.ndarray:
        """Class labels in the order of the columns of `probabilities`, as far as the estimator names them."""
        named = self._final if self._encoded is None else self._encoded
        try:
            return np.asarray(named.classes_)
        except AttributeError:
            # A skorch NeuralNet names none; its labels are the numbers of its outputs.
            if self.net is None:
                raise
            return np.zeros(0, np.int64)

    @property
    def is_encoded(self) -> bool:
        """Whether the net was taught by the numbers of its labels, their positions in `classes`."""
        return self._encoded is not None

    @property
    def is_regressor(self) -> bool:
        """Whether the estimator predicts quantities, not classes."""
        return hasattr(self._final, "fit") and bool(is_regressor(self._final))

    def n_outputs(self, X: Any) -> int:
        """Return the number of columns of `probabilities`, of which labels may have named only some so far.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them; a net is shown the first.

        Returns
        -------
        int
            The number.
        """
        return len(self.classes) if self.net is None else self.probabilities(take_rows(X, np.zeros(1, int))).shape[1]

    def labels_at(self, columns: np.ndarray, n_outputs: int) -> np.ndarray:
        """Return the labels that columns of `probabilities` stand for.

        Parameters
        ----------
        columns : numpy.ndarray (n,), int64
            Positions.
        n_outputs : int
            How many columns there are.

        Returns
        -------
        numpy.ndarray (n,)
            Of `classes` where these name all columns; else the positions, which are a plain net's labels.
        """
        classes = self.classes
        if self.net is None or self.is_encoded or len(classes) == n_outputs:
            return classes[np.minimum(columns, len(classes) - 1)]
        return columns

    def offers(self, need: str) -> bool:
        """Tell whether the learner can meet a need, a key of ``hooks.NEEDS``.

        Parameters
        ----------
        need : str
            What is asked for.

        Returns
        -------
        bool
            Whether it is there; needs that depend on the data ("labels", "features") are granted here.
        """
        if self.is_regressor and need in ("probabilities", "predictions", "gradients"):
            return False
        if need in ("embedding", "gradients"):
            return self.net is not None and self.is_fitted
        if need == "dropout":
            return self.net is not None and self.is_fitted and has_dropout(self.module)
        if need == "net":
            return self.net is not None
        if need == "critic":
            return self.is_fitted and getattr(self._final, "critic_is_trained_", hasattr(self._final, "critic_"))
        if need == "probabilities":
            return hasattr(self._final, "predict_proba") and self.is_fitted
        if need == "predictions":
            return hasattr(self._final, "predict") and self.is_fitted
        return True

    def no_trace(self) -> AbstractContextManager[None]:
        """Context that leaves the module, its buffers, modes, hooks and gradients as they were."""
        if self.net is None or not self.is_fitted:
            return no_trace(None)
        critic = getattr(self.net, "critic_", None)
        return no_trace(self.module if critic is None else nn.ModuleList([self.module, critic]))

    def functional(self) -> tuple[Callable[[dict[str, Tensor], Tensor], Tensor], dict[str, Tensor]]:
        """Return the module as a pure function of its parameters, and these, detached.

        Returns
        -------
        tuple
            ``forward(parameters, x)`` and a dict of parameters by name.
        """
        module = self.module
        parameters = {name: p.detach() for name, p in module.named_parameters()}

        def forward(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(module, parameters, (x,))

        return forward, parameters

    def fit_earlier(self, *parts: Any) -> None:
        """Fit copies of the earlier steps of an unfitted Pipeline to some samples, without labels.

        A strategy that needs no model starts from the samples as these steps see them. They are fitted once, to all
        samples that the strategy will read, so that these are prepared alike.

        Parameters
        ----------
        *parts : samples (n, ...)
            As users pass them, such as labelled set and pool; None is left out.
        """
        if self._earlier and not self.is_fitted:
            X = stack_rows([self._as_rows(part) for part in parts if part is not None])
            with read_by("the Pipeline", X):
                self._fitted_earlier = clone(Pipeline(self._earlier)).fit(X)

    def prepare(self, X: Any) -> Any:
        """Send samples through the earlier steps of a Pipeline.

        Before the first fit these steps are those that `fit_earlier` has fitted, or are fitted to `X` itself.

        Parameters
        ----------
        X : samples
            As users pass them.

        Returns
        -------
        samples
            What the last step is given.

        Raises
        ------
        InvalidInputError
            If a net is to be given what no tensor can hold.
        """
        if self._earlier:
            if not self.is_fitted and self._fitted_earlier is None:
                self.fit_earlier(X)
            earlier = Pipeline(self._earlier) if self.is_fitted else self._fitted_earlier
            with read_by("the Pipeline", X):
                X = earlier.transform(self._as_rows(X))
        if self.net is None:
            return self._as_rows(X)
        if checks.is_dataset(X):
            return as_pairs(X)
        return for_a_net(X)

    @staticmethod
    def _as_rows(X: Any) -> Any:
        # scikit-learn reads arrays; only a net reads a data set item by item.
        return samples_of(X, "the pool") if checks.is_dataset(X) else X

    def logits(self, X: Any) -> Tensor:
        """Return what softmax turns into the class probabilities.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.

        Returns
        -------
        Tensor (n, C)
            The module's own outputs where it is trained by cross-entropy; logarithms of the probabilities
            (clamped at 1e-12) where it returns probabilities; (0, z) where it has one logit z. A net trained by
            squared error on outputs that are no probabilities has no softmax; its outputs are returned.
        """
        net = self._require_net("logits")
        self._refuse_several_labels(X)
        criterion = getattr(net.criterion_, "_orig_mod", net.criterion_)
        if isinstance(criterion, nn.CrossEntropyLoss) and net.predict_nonlinearity == "auto":
            return self._outputs(X)
        if isinstance(criterion, nn.BCEWithLogitsLoss) and net.predict_nonlinearity == "auto":
            logit = self._outputs(X).reshape(-1, 1)
            return torch.cat([torch.zeros_like(logit), logit], dim=1)
        if trained_by_squared_error(net) and not sums_to_one(outputs := self._outputs(X)):
            return outputs
        return self.probabilities(X).clamp_min(1e-12).log()

    def probabilities(self, X: Any) -> Tensor:
        """Return class probabilities, honouring the net's ``predict_nonlinearity`` and criterion.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.

        Returns
        -------
        Tensor (n, C), float64
            Rows of the simplex; logarithms of probabilities are recognised and undone.

        Raises
        ------
        UnmetNeedError
            If the estimator has no probabilities, or what it calls so are none.
        """
        self._refuse_several_labels(X)
        if self.net is not None:
            self._require_net("probabilities")
            # The accessor is skorch's own resolution of `predict_nonlinearity`; it has no public name.
            values = self.net._get_predict_nonlinearity()(self._outputs(X)).double()
        else:
            found = self._classifier("predict_proba")(self._as_rows(X))
            values = torch.from_numpy(np.array(found, dtype=np.float64))
            _checked(f"probabilities of {type(self._final).__name__}", values)
        return on_simplex(values)

    def gives_several_labels(self, X: Any) -> bool:
        """Tell whether the estimator gives several labels to one sample.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them; a net with a loss for labels is shown the first, to count its outputs.

        Returns
        -------
        bool
            Whether it does.
        """
        if self.net is None:
            return gives_a_matrix(self._final)
        if not self.is_fitted or not has_label_loss(self.net) or isinstance(self.net, NeuralNetBinaryClassifier):
            return False
        outputs = self.probe(X)
        return outputs.ndim == 2 and outputs.shape[1] > 1

    def label_probabilities(self, X: Any) -> Tensor:
        """Return the probability of every label, for estimators that give several to one sample.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.

        Returns
        -------
        Tensor (n, K), float64
            Each between 0 and 1, for itself.
        """
        if self.net is not None:
            outputs = self._outputs(X) if has_label_loss(self._require_net("probabilities")) else torch.zeros(0)
            if outputs.ndim != 2 or outputs.shape[1] < 2:
                remedy = "Train it by BCEWithLogitsLoss on a matrix of labels, or pass one label per sample."
                got = f"{type(self.net).__name__} for one label"
                raise checks.expected("a net with an output for each of several labels", got, remedy)
            return from_outputs(self.net, outputs)
        return stacked_columns(self._classifier("predict_proba")(self._as_rows(X)))

    def probe(self, X: Any) -> Tensor:
        """Return the net's outputs for the first sample, as a proof that it can read such samples.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them, at least one.

        Returns
        -------
        Tensor (1, ...)
            What the module returned.

        Raises
        ------
        InvalidInputError
            If the net cannot read it, with its own error as the cause.
        """
        return self._outputs(take_rows(X, np.zeros(1, np.int64)))

    def _refuse_several_labels(self, X: Any) -> None:
        if self.gives_several_labels(X):
            name = type(self._final).__name__
            remedy = "Use a strategy for labels in a matrix, such as Entropy, Margin, BADGE or CoreSet."
            raise UnmetNeedError(f"Expected one class for each sample, got a {name} with several labels. {remedy}")

    def compared_outputs(self, X: Any) -> Tensor:
        """Return what the net's criterion compares with one-hot labels.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.

        Returns
        -------
        Tensor (n, C)
            The outputs as they are where the net is trained by ``nn.MSELoss``, else the class probabilities.
        """
        return self._outputs(X) if trained_by_squared_error(self._require_net("outputs")) else self.probabilities(X)

    def predictions(self, X: Any) -> Tensor:
        """Return the column of the most probable class; ties take the lower one.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.

        Returns
        -------
        Tensor (n,), int64
            Positions in `classes`.
        """
        if self.net is None and not hasattr(self._final, "predict_proba"):
            predicted = np.asarray(self._classifier("predict")(self._as_rows(X)))
            return torch.from_numpy(np.searchsorted(self.classes, predicted).astype(np.int64))
        return self.probabilities(X).argmax(dim=1)

    def embeddings(self, X: Any, layer: Layer = None) -> Tensor:
        """Return an inner representation of every sample, flattened to one row.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.
        layer : str, callable or None, default=None
            None: the input of the linear layer that runs last, the penultimate activation. A name from
            ``module.named_modules()``: that layer's output. A callable: is given the prepared samples.

        Returns
        -------
        Tensor (n, d)
            The embedding, on the CPU.

        Raises
        ------
        UnmetNeedError
            If there is no fitted torch net, or it has no linear layer and none is named.
        UnknownNameError
            If no layer has that name.
        """
        if callable(layer):
            return as_matrix(layer(self.prepare(X)), "the embedding callable's result")
        self._require_net("embedding")
        with self._recording(layer) as last:
            parts = [flat(last["output"].detach().cpu()) for _ in self._forward(self.prepare(X))]
        return _checked("embedding of the net", torch.cat(parts))

    def logits_and_critic(self, X: Any) -> tuple[Tensor, Tensor]:
        """Return the logits and what the net's critic says, from one pass through the net.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.

        Returns
        -------
        tuple of Tensor (n, C) and Tensor (n,)
            As `logits`; and the critic's values, the larger the more a sample looks unlabelled.

        Raises
        ------
        UnmetNeedError
            If the net has no trained critic.
        """
        if not self.offers("critic"):
            raise UnmetNeedError(f"Expected {NEEDS['critic']}, got {type(self._final).__name__} without one.")
        net = self._require_net("critic")
        values = []

        def judge(_: nn.Module, __: Any, z: Tensor) -> None:
            with torch.no_grad():
                values.append(net.critic_(flat(z)).reshape(-1).cpu())

        handle = self.module.get_submodule(net.critic_layer).register_forward_hook(judge)
        try:
            with self._as_written():
                return self.logits(X), _checked("values of the critic", torch.cat(values))
        finally:
            handle.remove()

    def features(self, X: Any, source: Layer = "input") -> Tensor:
        """Return the features that stay fixed while the net learns.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.
        source : str or callable, default="input"
            "input": the samples themselves, flattened. A layer's name: the output of that (frozen) layer.
            A callable: is given the prepared samples.

        Returns
        -------
        Tensor (n, d)
            The features, on the CPU.
        """
        if source == "input":
            return as_matrix(self.prepare(X), 'the pool under features="input"')
        return self.embeddings(X, source)

    def _require_net(self, need: str) -> Any:
        if self.net is None or not self.is_fitted:
            state = "not initialised yet" if self.net is not None else f"a {type(self._final).__name__}"
            meaning = NEEDS.get(need, f"the {need} of a fitted torch net")
            raise UnmetNeedError(f"Expected {meaning}, got an estimator that is {state}. Fit a skorch net first.")
        return self.net

    def _classifier(self, method: str) -> Callable[[Any], Any]:
        if not hasattr(self._final, method):
            name = type(self._final).__name__
            raise UnmetNeedError(f"Expected an estimator with {method}, got {name}. Use one that has it.")
        answer = getattr(self.estimator, method)

        def checked(X: Any) -> Any:
            with read_by(type(self.estimator).__name__, X):
                return answer(X)

        return checked

    def _outputs(self, X: Any) -> Tensor:
        outputs = list(self._forward(self.prepare(X)))
        # Minus infinity is the logarithm of no chance at all, which outputs may be.
        found = torch.cat([(out[0] if isinstance(out, tuple) else out).detach().cpu() for out in outputs])
        return _checked("outputs of the net", found, found.isnan() | (found == torch.inf))

    def _forward(self, X: Any) -> Iterator[Any]:
        net = self.net
        assert net is not None  # callers have required it
        dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)
        with self.no_trace():
            for batch in unwarned(in_order(net.get_iterator(net.get_dataset(X), training=False))):
                inputs, target = unpack_data(batch)
                # Lists and float64 arrays meet a float32 net every day; the module's own type decides.
                with read_by("the net", X):
                    outputs = net.evaluation_step((cast(inputs, dtype), target), training=False)
                yield outputs
                progress.advance(len(outputs[0] if isinstance(outputs, tuple) else outputs), "row")

    @contextmanager
    def _as_written(self) -> Iterator[None]:
        # A compiled module does not call the hooks of its parts, so the one inside stands in for it.
        held = vars(self.net)
        before = held["module_"]
        held["module_"] = self.module
        try:
            yield
        finally:
            held["module_"] = before

    @contextmanager
    def _recording(self, layer: str | None) -> Iterator[dict[str, Tensor]]:
        # What runs last overwrites, so the head's input stays even where linear layers are called out of order.
        last: dict[str, Tensor] = {}
        modules = dict(self.module.named_modules())
        if layer is not None and layer not in modules:
            remedy = "Names come from module.named_modules()."
            raise checks.unknown_name("layer", layer, [name for name in modules if name], remedy)
        linear = [part for part in modules.values() if isinstance(part, nn.Linear)]
        if layer is None and not linear:
            name = type(self.module).__name__
            raise UnmetNeedError(f"Expected a net with a linear layer, got {name}. Name the embedding layer instead.")

        def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            last["output"] = inputs[0] if layer is None else output

        handles = [part.register_forward_hook(record) for part in (linear if layer is None else [modules[layer]])]
        try:
            with self._as_written():
                yield last
        finally:
            for handle in handles:
                handle.remove()


def _checked(what: str, values: Tensor, bad: Tensor | None = None) -> Tensor:
    bad = ~values.isfinite() if bad is None else bad
    checks.check_outputs(what, values, flat(bad).any(dim=1).numpy())
    return values
