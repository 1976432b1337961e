"""What a strategy may ask of a learner, whatever the estimator behind it.

Everything read comes back as a CPU tensor with one row per sample; batches come from skorch's own iterator,
so that a user's data set, transforms, batch size and device hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.errors import UnmetNeedError
from modal_ntk.hooks import NEEDS
from modal_ntk.nets.cached_pool import held
from modal_ntk.nets.encoded import loss_class
from modal_ntk.nets.reading.outputs import (
    flat,
    gives_a_matrix,
    has_label_loss,
    on_simplex,
    plain_logits,
    stacked_columns,
    sums_to_one,
    trained_by,
)
from modal_ntk.nets.reading.passes import PassView, checked
from modal_ntk.nets.rows import take_rows


class NetView(PassView):
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
        if (cached := held(X, "logits", self, self.logits)) is not None:
            return cached
        if (to_logits := plain_logits(net)) is not None:
            return to_logits(self._outputs(X))
        if trained_by(net, nn.MSELoss) and not sums_to_one(outputs := self._outputs(X)):
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
        if (cached := held(X, "probabilities", self, self.probabilities)) is not None:
            return cached
        if self.net is not None:
            self._require_net("probabilities")
            # The accessor is skorch's own resolution of `predict_nonlinearity`; it has no public name.
            values = self.net._get_predict_nonlinearity()(self._outputs(X)).double()
        else:
            found = self._classifier("predict_proba")(self._as_rows(X))
            values = torch.from_numpy(np.array(found, dtype=np.float64))
            checked(f"probabilities of {type(self._final).__name__}", values)
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
            # Outputs of a net trained by nn.BCELoss are probabilities.
            return outputs.double() if issubclass(loss_class(self.net), nn.BCELoss) else outputs.double().sigmoid()
        return stacked_columns(self._classifier("predict_proba")(self._as_rows(X)))

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
        return self._outputs(X) if trained_by(self._require_net("outputs"), nn.MSELoss) else self.probabilities(X)

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
                return self.logits(X), checked("values of the critic", torch.cat(values))
        finally:
            handle.remove()
