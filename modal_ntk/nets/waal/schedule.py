"""Callbacks of nets with several optimisers: falling learning rates, and stopping at the best epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from skorch.callbacks import Callback, EarlyStopping


class LRDecay(Callback):
    """Lower the learning rate of every optimiser at given shares of the training.

    Parameters
    ----------
    steps : iterable of (float, float), default=((0.5, 0.1), (0.75, 0.01))
        From which share of ``max_epochs`` on, and what fraction of the first rate then holds.

    Examples
    --------
    >>> LRDecay().factor(epoch=41, n_epochs=80)
    0.1
    """

    def __init__(self, steps: Iterable[tuple[float, float]] = ((0.5, 0.1), (0.75, 0.01))) -> None:
        self.steps = steps

    def factor(self, epoch: int, n_epochs: int) -> float:
        """Return the fraction that holds in an epoch.

        Parameters
        ----------
        epoch : int
            Counted from 0.
        n_epochs : int
            Number of all.

        Returns
        -------
        float
            The fraction of the latest step reached; 1 before the first.
        """
        reached = [step for step in self.steps if epoch >= step[0] * n_epochs]
        return max(reached)[1] if reached else 1.0

    def on_train_begin(self, net: Any, **_: Any) -> None:
        """Note the rates to start from."""
        self.epoch_ = 0
        self.rates_ = [group["lr"] for group in _groups(net)]

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        """Set the rates of this epoch."""
        self._set_rates(net, self.factor(self.epoch_, net.max_epochs))
        self.epoch_ += 1

    def on_train_end(self, net: Any, **_: Any) -> None:
        """Put the first rates back, so that further training starts from them."""
        self._set_rates(net, 1.0)

    def _set_rates(self, net: Any, factor: float) -> None:
        for group, rate in zip(_groups(net), self.rates_, strict=True):
            group["lr"] = rate * factor


def _groups(net: Any) -> list[dict[str, Any]]:
    return [group for name in net._optimizers for group in getattr(net, name + "_").param_groups]


class StopAtBest(EarlyStopping):
    """Stop when the validation loss no longer falls, and go back to the best epoch, critic included.

    Skorch's own callback restores one module alone, by which critic and features would no longer belong together.
    Without a validation set it does nothing.

    Parameters
    ----------
    patience : int or None, default=10
        Epochs without improvement before the end; None switches it off.
    """

    def __init__(self, patience: int | None = 10) -> None:
        super().__init__(monitor="valid_loss", patience=patience)

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return ["patience"]

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Forget the training before."""
        super().on_train_begin(net, **kwargs)
        self.best_: dict[str, Any] = {}

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Keep the weights of a better epoch; stop after too many worse ones."""
        if self.patience is None or self.monitor not in net.history[-1]:
            return
        if self._is_score_improved(net.history[-1, self.monitor]):
            self.best_ = {name: copy.deepcopy(getattr(net, name).state_dict()) for name in ("module_", "critic_")}
        super().on_epoch_end(net, **kwargs)

    def on_train_end(self, net: Any, **_: Any) -> None:
        """Go back to the best epoch."""
        for name, weights in self.best_.items():
            getattr(net, name).load_state_dict(weights)
        self.best_ = {}
