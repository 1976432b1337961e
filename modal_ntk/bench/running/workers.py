"""Where cells run: this process, others on this machine, or a cluster; all through joblib."""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import joblib
import torch
from threadpoolctl import threadpool_limits

from modal_ntk import checks
from modal_ntk.bench.running.clusters import dask_backend, ray_backend
from modal_ntk.structure.threads import threads_of_torch

BACKENDS = ("loky", "dask", "ray")


@dataclass(frozen=True)
class Workers:
    """How many cells run at once, and where. The rows of a comparison do not depend on it.

    Parameters
    ----------
    jobs : int, default=1
        Cells run at once; one runs them in this process, except on a cluster.
    backend : {"loky", "dask", "ray"}, default="loky"
        Processes of this machine; or workers of Dask (extra ``dask``) or of Ray (extra ``ray``).
    address : str or None, default=None
        Of Dask's scheduler or of Ray's head, whose workers are all used then; None starts `jobs` workers here.
    threads : int or None, default=None
        Threads that each cell computes with: None is one, whatever runs beside it, since the last bits of
        a sum, and with them a choice among near equals, may depend on their number.
    devices : sequence of str, default=()
        Devices such as "cuda:0" for the estimator's ``device``; each worker keeps to one of them. Ray, which does not
        count its workers, takes one device at most.

    Examples
    --------
    >>> Workers(jobs=4).describe()
    {'jobs': 4, 'backend': 'loky', 'threads': 1, 'devices': []}
    """

    jobs: int = 1
    backend: str = "loky"
    address: str | None = None
    threads: int | None = None
    devices: Sequence[str] = ()

    def check(self) -> None:
        """Check the parameters.

        Raises
        ------
        InvalidInputError
            If one cannot be used.
        MissingExtraError
            If the backend is not installed.
        """
        checks.check_integer("jobs", self.jobs)
        checks.check_choice("backend", self.backend, BACKENDS)
        if self.threads is not None:
            checks.check_integer("threads", self.threads, optional=True)
        if self.address is not None and self.backend == "loky":
            remedy = 'Pass backend="dask" or backend="ray" with it.'
            raise checks.expected("an address only with a cluster", f"{self.address!r} with loky", remedy)
        if self.backend == "dask":
            checks.check_installed('backend="dask"', ["distributed"], extra="dask")
        if self.backend == "ray":
            checks.check_installed('backend="ray"', ["ray"], extra="ray")
            if len(self.devices) > 1:
                remedy = "Pass one, or start a run for each device on the same folder, with loky."
                raise checks.expected("at most one device with Ray", f"{len(self.devices)}", remedy)

    def describe(self) -> dict[str, Any]:
        """Return the parameters as what JSON can hold, without the address."""
        return {
            "jobs": self.jobs,
            "backend": self.backend,
            "threads": 1 if self.threads is None else self.threads,
            "devices": list(self.devices),
        }

    @contextmanager
    def parallel(self) -> Iterator[joblib.Parallel]:
        """Context with what runs joblib's tasks; results come as they are done. Clusters started here end with it.

        Yields
        ------
        joblib.Parallel
            To be called with tasks.
        """
        with ExitStack() as stack:
            if self.backend == "dask":
                backend = stack.enter_context(dask_backend(self.address, self.jobs))
                stack.enter_context(joblib.parallel_config(backend))
            elif self.backend == "ray":
                backend, n_jobs = stack.enter_context(ray_backend(self.address, self.jobs))
                stack.enter_context(joblib.parallel_config(backend, n_jobs=n_jobs))
            else:
                stack.enter_context(joblib.parallel_config("loky", n_jobs=self.jobs))
            # One task at a time for each worker: cells take minutes, and what is not begun may yet be done by others.
            yield joblib.Parallel(return_as="generator_unordered", pre_dispatch="1*n_jobs", batch_size=1)


def worker_number() -> int:
    """Return a number that stays with this worker, counted from zero where the backend counts.

    Returns
    -------
    int
        Dask's name of the worker if it is a number, else the number in the name of the process, else zero.

    Examples
    --------
    >>> worker_number()
    0
    """
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            name = str(get_worker().name)
        except ValueError:  # not in a worker of Dask
            name = ""
        if name.isdigit():
            return int(name)
    found = re.search(r"-(\d+)$", multiprocessing.current_process().name)
    return int(found[1]) - 1 if found else 0


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Compute with a number of threads inside: torch, numba, BLAS and OpenMP.

    Parameters
    ----------
    threads : int or None
        How many; None, one.

    Yields
    ------
    None
        Nothing.
    """
    wanted = 1 if threads is None else threads
    before = torch.get_num_threads()
    try:
        with threadpool_limits(wanted):
            torch.set_num_threads(wanted)
            with threads_of_torch():
                yield
    finally:
        # Last: the limits put back what they found, which starting numba's threads may have changed.
        torch.set_num_threads(before)
