"""What the events of a session amount to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from modal_ntk.errors import InvalidInputError
from modal_ntk.labeling.log import Event
from modal_ntk.labeling.values import plain

_NOTHING = object()


@dataclass
class State:
    """Labels, skipped rows and open questions.

    Parameters
    ----------
    n_rows : int
        Samples of the pool.
    labels : dict of int to object
        Label by row, in the order in which they were told first.
    skipped : set of int
        Rows that were passed over.
    asked : dict of int to None
        Rows that were asked for, in order, answered or not.
    n_asks : int
        How often was asked.
    last : int
        The last event.
    """

    n_rows: int
    labels: dict[int, Any] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    asked: dict[int, None] = field(default_factory=dict)
    n_asks: int = 0
    last: int = 0
    _undoable: list[tuple[int, int, Any, bool]] = field(default_factory=list)

    @property
    def pending(self) -> list[int]:
        """Rows asked for and not answered, in the order asked."""
        return [row for row in self.asked if not self.answered(row)]

    def answered(self, row: int) -> bool:
        """Say whether a row has a label or was skipped."""
        return row in self.labels or row in self.skipped

    def last_answer(self) -> tuple[int, int] | None:
        """Return event and row of the last answer that is not undone."""
        return self._undoable[-1][:2] if self._undoable else None

    def follow(self, events: Iterable[Event]) -> None:
        """Take events into account.

        Parameters
        ----------
        events : iterable of Event
            Those after `last`, in order.

        Raises
        ------
        InvalidInputError
            If one cannot have happened.
        """
        for event in events:
            if event.kind == "ask":
                self._ask(event)
            elif event.kind == "undo":
                self._undo(event)
            else:
                self._answer(event)
            self.last = event.id

    def _ask(self, event: Event) -> None:
        rows = event.value.get("rows") if isinstance(event.value, dict) else None
        if not isinstance(rows, list):
            raise InvalidInputError(f"Event {event.id} asks for nothing: the log is damaged.")
        self.asked.update((self._checked(row, event), None) for row in rows)
        self.n_asks += 1

    def _answer(self, event: Event) -> None:
        row = self._checked(event.row, event)
        # A skipped row may still be labelled: undoing that must skip it again.
        self._undoable.append((event.id, row, self.labels.get(row, _NOTHING), row in self.skipped))
        self.skipped.discard(row)
        if event.kind == "label":
            try:
                self.labels[row] = plain(event.value)
            except InvalidInputError as error:
                raise InvalidInputError(f"Event {event.id} holds no label: {error} The log is damaged.") from error
        else:
            self.skipped.add(row)

    def _undo(self, event: Event) -> None:
        if not self._undoable or self._undoable[-1][0] != event.value:
            raise InvalidInputError(f"Event {event.id} undoes what is not the last answer: the log is damaged.")
        _, row, label, skipped = self._undoable.pop()
        self.skipped.discard(row)
        if label is _NOTHING:
            self.labels.pop(row, None)
        else:
            self.labels[row] = label
        if skipped:
            self.skipped.add(row)

    def _checked(self, row: Any, event: Event) -> int:
        if not isinstance(row, int) or isinstance(row, bool) or not 0 <= row < self.n_rows:
            raise InvalidInputError(f"Event {event.id} names row {row!r} of {self.n_rows}: the log is damaged.")
        return row
