"""Clusters that run joblib's tasks: reached or started here, and given up in words where they are gone."""

from __future__ import annotations

import builtins
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from joblib._parallel_backends import MultiprocessingBackend

from modal_ntk import checks
from modal_ntk.errors import IncompleteRunError

PATIENCE = 10.0
"""Seconds without an answer after which Ray's head is given up. Ray itself ends the whole process after a minute."""


@contextmanager
def dask_backend(address: str | None, jobs: int) -> Iterator[Any]:
    """Context in which Dask runs joblib's tasks; a cluster that was started here ends with it.

    Parameters
    ----------
    address : str or None
        Of a scheduler that runs already, whose workers are all used then; None starts `jobs` workers here.
    jobs : int
        Workers to start.

    Yields
    ------
    joblib's backend
        Connected.

    Raises
    ------
    InvalidInputError
        If the address is none.
    IncompleteRunError
        If no scheduler answers.
    """
    from distributed import Client, LocalCluster
    from distributed.comm.addressing import get_address_host
    from joblib._dask import DaskDistributedBackend

    class OnDask(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            # Where joblib counts one it runs the tasks itself, in this process, and no worker is asked.
            return max(2, super().effective_n_jobs(n_jobs))

    if address is None:
        with (
            LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            yield OnDask(client=client)
        return
    try:
        get_address_host(address)
    except ValueError as error:
        remedy = "Write it as the scheduler prints it, such as tcp://host:8786."
        raise checks.expected("an address of Dask's scheduler", checks.one_line(str(error)), remedy) from error
    try:
        client = Client(address)
    except (OSError, UnicodeError) as error:
        raise _gone("Dask's scheduler", address) from error
    with client:
        yield OnDask(client=client)


@contextmanager
def ray_backend(address: str | None, jobs: int) -> Iterator[tuple[Any, int]]:
    """Context in which Ray runs joblib's tasks; a Ray that was started here ends with it.

    Parameters
    ----------
    address : str or None
        Of a head that runs already, whose workers are all used then; None starts `jobs` workers here, or uses the Ray
        that this process is connected to.
    jobs : int
        Tasks at once, without an address.

    Yields
    ------
    tuple of (joblib's backend, int)
        And the tasks that it runs at once.

    Raises
    ------
    IncompleteRunError
        If no head answers, it is gone before the tasks are done, or Ray does not start.
    """
    import ray

    backend = _backend(ray)
    with _connected(ray, address, jobs) as place, _watched(place, backend):
        yield backend, jobs if address is None else -1


@contextmanager
def _connected(ray: Any, address: str | None, jobs: int) -> Iterator[str]:
    if ray.is_initialized():
        yield ray.get_runtime_context().gcs_address
        return
    if address is not None and not answers(address):
        raise _gone("Ray's head", address)
    here = threading.current_thread() is threading.main_thread()
    before, printing = signal.getsignal(signal.SIGTERM) if here else None, builtins.print
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
    if address is None:
        quiet |= {"num_cpus": jobs, "include_dashboard": False}
    try:
        try:
            ray.init(address="local" if address is None else address, **quiet)  # None may be anybody's on this machine
        except Exception as error:
            reason = checks.one_line(f"{type(error).__name__}: {error}")
            remedy = "The same command tries it again; fewer jobs, or a machine with less to do, may be what it needs."
            raise IncompleteRunError(f"Expected a Ray that starts, got {reason}. {remedy}") from error
        builtins.print = printing  # Ray puts its own, and then no fitted net can be sent: its log holds Python's
        if before is not None:  # and a handler
            signal.signal(signal.SIGTERM, before)
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


@contextmanager
def _watched(address: str, backend: Any) -> Iterator[None]:
    # Ray waits for a head that is gone, and then ends the whole process in words of its own.
    ended = threading.Event()

    def watch() -> None:
        answered = monotonic()
        while not ended.wait(1):
            if answers(address):
                answered = monotonic()
            elif monotonic() - answered > PATIENCE:
                backend.give_up(_gone("Ray's head", address))
                return

    watcher = threading.Thread(target=watch, name="Ray's head", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def answers(address: str) -> bool:
    """Return whether somebody listens at an address.

    Parameters
    ----------
    address : str
        ``host:port``, perhaps after ``ray://``; words such as "auto" have none, and are taken to answer.

    Returns
    -------
    bool
        Whether a connection could be made.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return True
    # No machine has such a name, and none has such a port.
    nowhere = (OSError, UnicodeError, OverflowError)
    with suppress(*nowhere), socket.create_connection((host.strip("[]"), int(port)), timeout=2):
        return True
    return False


def _gone(what: str, address: str) -> IncompleteRunError:
    remedy = "Start it again; the same command goes on where this one stopped."
    return IncompleteRunError(f"Expected {what} to answer at {checks.one_line(address)}, got none. {remedy}")


def _backend(ray: Any) -> Any:
    from ray.util.multiprocessing import Pool

    # Ray's own backend for joblib hands out results only at the end, and changes a class of joblib's for everybody.
    class OnRay(MultiprocessingBackend):
        supports_return_generator = True
        lost: IncompleteRunError | None = None

        def effective_n_jobs(self, n_jobs: int) -> int:
            return n_jobs if n_jobs > 0 else int(ray.cluster_resources()["CPU"])

        def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
            self.parallel, n_jobs = parallel, self.effective_n_jobs(n_jobs)
            self._waiting: dict[int, Callable[[Any], None]] = {}
            self._pool = Pool(n_jobs)
            return n_jobs

        def submit(self, func: Any, callback: Any = None) -> Any:
            def done(out: Any) -> None:
                if self._waiting.pop(id(done), None):
                    callback(out)

            self._waiting[id(done)] = done
            send = getattr(super(), "submit", None) or super().apply_async  # joblib before 1.5
            return send(func, done)

        apply_async = submit

        def retrieve_result_callback(self, out: Any) -> Any:
            if self.lost is not None:
                raise self.lost
            return super().retrieve_result_callback(out)

        def give_up(self, error: IncompleteRunError) -> None:
            self.lost = error
            for done in list(self._waiting.values()):
                done(None)

        def terminate(self) -> None:
            if self.lost is None:
                super().terminate()

        def abort_everything(self, ensure_ready: bool = True) -> None:
            if self.lost is None:
                super().abort_everything(ensure_ready)

    return OnRay()
