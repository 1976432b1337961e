"""How fast a machine is, by two small pieces of work that every strategy is made of."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

_SIDE, _LENGTH, _TIMES = 512, 2**23, 7


class Speed(NamedTuple):
    """What two pieces of work take on one core, in seconds.

    Parameters
    ----------
    product : float
        The product of two 512 x 512 matrices in single precision.
    copy : float
        A copy of 32 MiB.
    """

    product: float
    copy: float

    def relative_to(self, other: Speed) -> float:
        """Return how many times as long this machine takes as another: the geometric mean of both pieces.

        Parameters
        ----------
        other : Speed
            Of the other machine.

        Returns
        -------
        float
            Above one where this machine is the slower one.

        Examples
        --------
        >>> Speed(0.02, 0.08).relative_to(Speed(0.01, 0.01))
        4.0
        """
        return float(np.sqrt(self.product / other.product * self.copy / other.copy))

    @classmethod
    def measured(cls) -> Speed:
        """Measure this machine, in a tenth of a second.

        Returns
        -------
        Speed
            The shortest of seven times each, in the processor's time of this process, so that other work counts little.

        Examples
        --------
        >>> all(seconds > 0 for seconds in Speed.measured())
        True
        """
        rng = np.random.default_rng(0)
        square, product = rng.standard_normal((_SIDE, _SIDE), np.float32), np.empty((_SIDE, _SIDE), np.float32)
        row, copy = rng.standard_normal(_LENGTH, np.float32), np.zeros(_LENGTH, np.float32)
        with threadpool_limits(1):
            return cls(_shortest(np.matmul, square, square, product), _shortest(np.copyto, copy, row))


def _shortest(work: Callable[..., Any], *arrays: np.ndarray) -> float:
    seconds = []
    for _ in range(_TIMES):
        started = process_time()
        work(*arrays)
        seconds.append(process_time() - started)
    return min(seconds)
