"""Estimators and strategies that go to other processes, which must be able to import them: hence a module apart."""

import itertools
import os
import signal
import time

import numpy as np
from sklearn.linear_model import LogisticRegression

from modal_ntk import Entropy
from modal_ntk.bench.workers import worker_number


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
    """Counts its fits in a folder; at those that are listed it raises, or ends its process."""

    def __init__(self, folder=None, raises=(), dies=(), waits=0.0):
        super().__init__()
        self.folder = folder
        self.raises = raises
        self.dies = dies
        self.waits = waits

    def __repr__(self):
        return "Fragile()"  # when it breaks is no part of a protocol

    def fit(self, X, y):
        for number in itertools.count(1):
            try:  # whoever makes the file has the number
                with open(os.path.join(self.folder, f"fit-{number}"), "x"):
                    break
            except FileExistsError:
                continue
        if number in self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.raises:
            raise RuntimeError(f"fit {number} went wrong")
        time.sleep(self.waits)
        return super().fit(X, y)
