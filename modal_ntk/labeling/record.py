"""What is known of a pool's labels: told, corrected, skipped and taken back, over a log that outlives the process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modal_ntk import checks, nets
from modal_ntk.labeling import values
from modal_ntk.labeling.log import FORMAT, Event, EventLog
from modal_ntk.labeling.state import State

_BLOCK = 4096  # rows looked at together: a memory-mapped pool is never held whole


class Record:
    """A pool and what has been answered of it; the parameters are those of `LabelingSession`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        X_pool: Any,
        *,
        classes: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        random_state: int = 0,
    ) -> None:
        self.X_pool = checks.check_samples("X_pool", X_pool)
        self.random_state = checks.check_integer("random_state", random_state, minimum=0)
        n = checks.n_rows(self.X_pool)
        self.names = None if names is None else values.check_names(names, n)
        self.classes = None if classes is None else values.check_classes(classes)
        self.pool = fingerprint(self.X_pool, self.names)
        about = {"format": FORMAT, "n_rows": n, "pool": self.pool, "classes": self.classes}
        self._log = EventLog(path, {**about, "random_state": self.random_state})
        self._state = State(n)

    @property
    def labeled(self) -> np.ndarray:
        """Rows with a label, in the order told, (n,), int64."""
        return np.array(list(self._now().labels), np.int64)

    @property
    def labels(self) -> np.ndarray:
        """Their labels, (n,)."""
        return np.array(list(self._now().labels.values()))

    @property
    def pending(self) -> np.ndarray:
        """Rows asked for and neither labelled nor skipped yet, in the order asked, int64."""
        return np.array(self._now().pending, np.int64)

    @property
    def skipped(self) -> np.ndarray:
        """Rows that were passed over, ascending, int64."""
        return np.array(sorted(self._now().skipped), np.int64)

    @property
    def events(self) -> list[Event]:
        """Everything that has happened, from the file."""
        return self._log.since()

    def label_of(self, row: int) -> Any:
        """Return the label of a row.

        Parameters
        ----------
        row : int
            Of the pool.

        Returns
        -------
        object
            The label; None if there is none.
        """
        return self._now().labels.get(self._row(row))

    def tell(self, row: int, label: Any) -> None:
        """Label a row, whether it was asked for, skipped before, or neither.

        Parameters
        ----------
        row : int
            Of the pool.
        label : str, int, float or bool
            Its class.

        Raises
        ------
        InvalidInputError
            If the row has a label, or the label is none of the classes.
        """
        self._label(row, label, again=False)

    def correct(self, row: int, label: Any) -> None:
        """Change the label of a row.

        Parameters
        ----------
        row : int
            Of the pool.
        label : str, int, float or bool
            Its class.

        Raises
        ------
        InvalidInputError
            If the row has no label, or the label is none of the classes.
        """
        self._label(row, label, again=True)

    def _label(self, row: int, label: Any, *, again: bool) -> None:
        row, value = self._row(row), values.plain(label)

        def decide() -> tuple[str, int, Any]:
            labels = self._state.labels
            if (row in labels) != again:
                got = f"{labels[row]!r} already" if row in labels else "none"
                remedy = "Use correct()." if row in labels else "Use tell()."
                raise checks.expected(f"row {row} to have {'a' if again else 'no'} label", got, remedy)
            # The class itself is stored: 1.0, as spreadsheets and pandas write it, is the class 1.
            return "label", row, values.settled(value, self.classes, labels.values())

        self._add(decide)

    def skip(self, row: int) -> None:
        """Pass over a row, which is not asked for again.

        Parameters
        ----------
        row : int
            Of the pool.

        Raises
        ------
        InvalidInputError
            If it has a label, or was skipped.
        """
        row = self._row(row)

        def decide() -> tuple[str, int, Any]:
            if self._state.answered(row):
                got = f"{self._state.labels[row]!r}" if row in self._state.labels else "skipped"
                raise checks.expected(f"row {row} to be open", got, "Use correct() or undo().")
            return "skip", row, None

        self._add(decide)

    def undo(self) -> int:
        """Take back the last label, correction or skip that stands; once more, the one before.

        Returns
        -------
        int
            The row it was about.

        Raises
        ------
        InvalidInputError
            If there is nothing to take back.
        """
        undone: list[int] = []

        def decide() -> tuple[str, int, Any]:
            answer = self._state.last_answer()
            if answer is None:
                raise checks.expected("an answer to take back", "none", "Tell a label first.")
            undone.append(answer[1])
            return "undo", answer[1], answer[0]

        self._add(decide)
        return undone[0]

    def _now(self) -> State:
        self._state.follow(self._log.since(self._state.last))
        return self._state

    def _add(self, decide: Callable[[], tuple[str, int | None, Any] | None]) -> bool:
        # Decided on what the file says, while nobody else may write to it. None is no event.
        def decided(news: list[Event]) -> tuple[str, int | None, Any] | None:
            self._state.follow(news)
            return decide()

        added = self._log.append(decided, after=self._state.last)
        self._state.follow(added)
        return bool(added)

    def _row(self, row: Any) -> int:
        value = checks.check_integer("row", row, minimum=0)
        if value >= self._state.n_rows:
            raise checks.expected(f"a row below {self._state.n_rows}", value, "Rows are positions in X_pool.")
        return value


def fingerprint(X_pool: Any, names: Sequence[str] | None = None) -> str:
    """Return a digest of a pool by its values, which is the same on every machine.

    Parameters
    ----------
    X_pool : array, tensor, frame, sparse matrix, list, dict of these, or torch Dataset
        The samples. Their order counts; the type of float that holds them does not.
    names : sequence of str, optional
        Names of the samples.

    Returns
    -------
    str
        32 hexadecimal digits.

    Examples
    --------
    >>> pool = np.arange(6.0).reshape(3, 2)
    >>> fingerprint(pool) == fingerprint(pool.astype(np.float32)), fingerprint(pool) == fingerprint(pool[::-1])
    (True, False)
    """
    n = checks.n_rows(X_pool)
    digest = hashlib.sha256(str(n).encode())
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        for row in nets.row_digests(nets.take_rows(X_pool, rows)):
            digest.update(row)
    for name in names or ():
        digest.update(hashlib.sha256(name.encode()).digest())
    return digest.hexdigest()[:32]
