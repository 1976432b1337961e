"""What goes to other processes, which must be able to import it: hence a module apart."""

import os
import signal
import time

import numpy as np
from sklearn.linear_model import LogisticRegression

from modal_ntk import Entropy
from modal_ntk.bench.running.workers import worker_number
from modal_ntk.bench.storage.store import Store


class Whose(Entropy):
    """Tells, as scores, which process read each sample."""

    @classmethod
    def _shard_scores(cls, view, X, number, **options):
        return np.full(len(X), float(os.getpid()))


class Counted(LogisticRegression):
    """Counts how often it is sent."""

    sent = 0

    def __getstate__(self):
        Counted.sent += 1
        return super().__getstate__()


class OnDevice(LogisticRegression):
    """Keeps the device it was given, which no computation here needs."""

    def __init__(self, device="cpu", folder=None):
        super().__init__()
        self.device = device
        self.folder = folder

    def fit(self, X, y):
        with open(os.path.join(self.folder, f"{os.getpid()}-{worker_number()}"), "a") as file:
            file.write(f"{self.device}\n")
        return super().fit(X, y)


class Fragile(LogisticRegression):
    """Counts its fits in a folder, and raises at those that are listed; deadly data end its process, so many times.

    Data are deadly that begin with that sample: which runs die does not depend on which worker comes first.
    """

    def __init__(self, folder=None, raises=(), deadly=None, deaths=0, waits=0.0):
        super().__init__()
        self.folder = folder
        self.raises = raises
        self.deadly = deadly
        self.deaths = deaths
        self.waits = waits

    def __repr__(self):
        return "Fragile()"  # when it breaks is no part of a protocol

    def fit(self, X, y):
        number = self._next("fit")
        if self.deaths and np.array_equal(X[0], self.deadly) and self._next("death") <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.raises:
            raise RuntimeError(f"fit {number} went wrong")
        time.sleep(self.waits)
        return super().fit(X, y)

    def _next(self, kind):
        number = 1
        while True:
            try:  # whoever makes the file has the number
                with open(os.path.join(self.folder, f"{kind}-{number}"), "x"):
                    return number
            except FileExistsError:
                number += 1


def agreed(folder):
    """Make a store and agree on a protocol."""
    Store(folder).agree({"a": 1, "b": 2})
