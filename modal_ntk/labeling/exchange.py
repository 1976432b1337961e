"""Labels from and to other programs: CSV and Label Studio."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from modal_ntk import checks
from modal_ntk.checks.files import reading
from modal_ntk.errors import InvalidInputError
from modal_ntk.labeling import values
from modal_ntk.labeling.record import Record
from modal_ntk.writing import marked, replacing

SKIPPED = object()
_ROW, _POOL = "modal_ntk_row", "modal_ntk_pool"
_ROW_NUMBER = re.compile(r"\d{1,18}(\.0*)?", re.ASCII)  # as pandas writes integers where some are missing


class Answer(NamedTuple):
    """What somebody has answered.

    Parameters
    ----------
    row : int
        Of the pool.
    label : object
        Its label, or `SKIPPED`.
    place : str
        Where it says so.
    """

    row: int
    label: Any
    place: str


def import_answers(session: Record, answers: Sequence[Answer]) -> int:
    """Tell a session what others have answered.

    Parameters
    ----------
    session : Record
        The session.
    answers : sequence of Answer
        Of several for a row the last counts.

    Returns
    -------
    int
        How many answers were new.

    Raises
    ------
    InvalidInputError
        If a label is unusable; nothing is told then.
    """
    others = list(dict.fromkeys(session.labels.tolist()))
    last: dict[int, Any] = {}
    for row, label, place in answers:
        try:
            last[row] = label if label is SKIPPED else values.settled(values.plain(label), session.classes, others)
        except InvalidInputError as error:
            raise InvalidInputError(f"{place}: {error}") from error
        if label is not SKIPPED and last[row] not in others:
            others.append(last[row])
    skipped = set(session.skipped.tolist())
    n_new = 0
    for row, label in last.items():
        known = session.label_of(row)
        if label is SKIPPED:
            if known is None and row not in skipped:
                session.skip(row)
                n_new += 1
        elif known is None:
            session.tell(row, label)
            n_new += 1
        elif known != label:
            session.correct(row, label)
            n_new += 1
    return n_new


def export_csv(session: Record, path: str | os.PathLike[str]) -> None:
    """Write `session` as CSV; see `LabelingSession.export_csv`."""
    labels = dict(zip(session.labeled.tolist(), session.labels.tolist(), strict=True))
    skipped = set(session.skipped.tolist())
    with replacing(Path(path)) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "name", "status", "label"])
        for row in sorted({*labels, *skipped, *session.pending.tolist()}):
            status = "labelled" if row in labels else "skipped" if row in skipped else "pending"
            name = "" if session.names is None else marked(session.names[row])
            writer.writerow([row, name, status, values.cell_of(labels[row]) if row in labels else ""])


def read_csv(session: Record, path: str | os.PathLike[str]) -> list[Answer]:
    """Read answers; see `LabelingSession.import_csv`."""
    known = session.classes or list(dict.fromkeys(session.labels.tolist()))
    rows = _Rows(session)
    answers: dict[int, Answer] = {}
    for place, line in _lines(Path(path)):
        cell, status = line.get("label", ""), line.get("status", "").strip().casefold()
        if not cell.strip() and status != "skipped":
            continue
        row = rows.of(line.get("row"), line.get("name", ""), place)
        answer = Answer(row, values.read_cell(cell, known) if cell.strip() else SKIPPED, place)
        before = answers.setdefault(row, answer)
        if before is not answer and before.label != answer.label:
            got = f"{_told(before)}, and {_told(answer)}"
            raise checks.expected(f"one answer for row {row}", got, "Keep the line that is right.")
    return list(answers.values())


def _told(answer: Answer) -> str:
    return f"{'skipped' if answer.label is SKIPPED else repr(answer.label)} in {answer.place}"


def _lines(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    # Each line of a table by the names of its columns, and where it stands.
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader, header = _table(file, path)
            while True:
                number = reader.line_num + 1  # a cell may go on over several lines
                cells = next(reader, None)
                if cells is None:
                    return
                place = f"line {number} of {path}"
                if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
                    got = f"{len(cells)} cells"
                    remedy = "Put a cell with the separator in it into quotes."
                    raise checks.expected(f"at most {len(header)} cells in {place}, as in its header", got, remedy)
                yield place, dict(zip(header, cells, strict=False))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        got = checks.one_line(f"{error}, in line {number}")
        raise checks.expected(f"a CSV file at {path}", got, "Save it as CSV in UTF-8.") from error


def _table(file: IO[str], path: Path) -> tuple[Any, list[str]]:
    # Commas, or what spreadsheets write in their place where the comma stands in numbers.
    for delimiter in ",;\t":
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        if "label" in header and {"row", "name"} & set(header):
            if repeated := [name for name in ("row", "name", "label", "status") if header.count(name) > 1]:
                raise checks.expected(f"one column {repeated[0]} in {path}", "several", "Take the others out.")
            return reader, header
    file.seek(0)
    got = repr(checks.one_line(file.readline(200))) if path.stat().st_size else "an empty file"
    raise checks.expected(f"columns row or name, and label in {path}", got, "Name the columns so, in the first line.")


class _Rows:
    # Rows of the pool by what files call them.
    def __init__(self, session: Record) -> None:
        self.n = checks.n_rows(session.X_pool)
        self.names = {} if session.names is None else {name: i for i, name in enumerate(session.names)}

    def of(self, row: Any, name: str, place: str) -> int:
        name = name[1:] if name.startswith("'") else name
        if not name or not self.names:
            return self._numbered(row, place)
        if name not in self.names:
            raise checks.expected(f"the name of a sample in {place}", repr(name), "Use the names of this pool.")
        if row is not None and row.strip() and self._numbered(row, place) != self.names[name]:
            got = f"{name!r}, which is row {self.names[name]}"
            raise checks.expected(f"the name of row {row.strip()} in {place}", got, "Mend one, or leave one out.")
        return self.names[name]

    def _numbered(self, row: Any, place: str) -> int:
        text = str(row).strip()
        if isinstance(row, (bool, float)) or not _ROW_NUMBER.fullmatch(text) or int(text.partition(".")[0]) >= self.n:
            got = repr(row) if len(text) < 40 else f"{text[:40]!r}..."
            raise checks.expected(f"a row from 0 to {self.n - 1} in {place}", got, "Rows are positions in X_pool.")
        return int(text.partition(".")[0])


def export_label_studio(
    session: Record,
    path: str | os.PathLike[str],
    data: Callable[[int], Mapping[str, Any]],
    rows: Sequence[int] | np.ndarray | None,
    from_name: str,
    to_name: str,
) -> None:
    """Write tasks; see `LabelingSession.export_label_studio`."""
    labels = dict(zip(session.labeled.tolist(), session.labels.tolist(), strict=True))
    skipped = set(session.skipped.tolist())
    shown = sorted({*labels, *skipped, *session.pending.tolist()}) if rows is None else rows
    tasks: list[dict[str, Any]] = []
    for row in checks.check_rows("rows", shown, checks.n_rows(session.X_pool)).tolist():
        task = task_of(session, row, data)
        if row in labels:
            task["annotations"] = [{"result": [choice_of(labels[row], from_name, to_name)]}]
        elif row in skipped:
            task["annotations"] = [{"result": [], "was_cancelled": True}]
        tasks.append(task)
    with replacing(Path(path)) as draft:
        draft.write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")


def choice_of(label: Any, from_name: str, to_name: str) -> dict[str, Any]:
    """Return a label as Label Studio has a choice."""
    return {"from_name": from_name, "to_name": to_name, "type": "choices", "value": {"choices": [str(label)]}}


def task_of(session: Record, row: int, data: Callable[[int], Mapping[str, Any]]) -> dict[str, Any]:
    """Return a task that asks for the label of a row.

    Parameters
    ----------
    session : Record
        The session.
    row : int
        Of the pool.
    data : callable
        Given the row, returns what the task shows.

    Returns
    -------
    dict
        What JSON can hold.
    """
    return {"data": {**_shown(data, row), _ROW: row, _POOL: session.pool}}


def _shown(data: Callable[[int], Mapping[str, Any]], row: int) -> Mapping[str, Any]:
    shown, remedy = data(row), 'Return what JSON can hold, such as {"image": "https://..."}.'
    with reading(f"data({row}) to be a dict of texts and numbers", remedy):
        if not isinstance(shown, Mapping):
            raise TypeError(f"{type(shown).__name__}")
        json.dumps(dict(shown), ensure_ascii=False).encode()
    return shown


def read_label_studio(session: Record, path: str | os.PathLike[str], from_name: str) -> list[Answer]:
    """Read answers; see `LabelingSession.import_label_studio`."""
    what, remedy = "to be an export of Label Studio", "Export the project as JSON or JSON-MIN, with the tasks' data."
    with reading(f"{path} {what}", remedy):
        tasks = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(tasks, list):
            raise ValueError("no list of tasks")
    reader = Tasks(session, from_name)
    for number, task in enumerate(tasks, start=1):
        known = task.get("id") if isinstance(task, dict) else None
        place = f"task {number}{f' (id {known!r})' if isinstance(known, (int, str)) else ''} of {path}"
        with reading(f"{place} {what}", remedy):
            reader.read(task, place)
    reader.check_tags(str(path))
    return reader.answers


class Tasks:
    """What tasks say, and under which tags.

    Parameters
    ----------
    session : Record
        Whose pool they ask of.
    from_name : str
        Name of the Choices tag.
    """

    POOL = _POOL

    def __init__(self, session: Record, from_name: str) -> None:
        self.session, self.from_name = session, from_name
        self.known = session.classes or list(dict.fromkeys(session.labels.tolist()))
        self.rows = _Rows(session)
        self.answers: list[Answer] = []
        self.others: dict[str, list[str]] = {}

    def row_of(self, data: Mapping[str, Any], place: str) -> int:
        """Return the row that a task's data ask of."""
        return self.rows.of(data.get(_ROW), "", place)

    def read(self, task: Any, place: str) -> None:
        """Add the answers of a task."""
        data = task.get("data", task)
        if data.get(_POOL) != self.session.pool:
            got = repr(data.get(_POOL))
            remedy = "Import the export of its tasks."
            raise checks.expected(f"tasks of this pool, {self.session.pool}, in {place}", got, remedy)
        row = self.row_of(data, place)
        if "annotations" not in task:  # JSON-MIN has the choice beside the data
            self._read_least(task, row, place)
            return
        for annotation in task["annotations"]:
            if annotation.get("was_cancelled"):
                self.answers.append(Answer(row, SKIPPED, place))
            chosen = [result for result in annotation["result"] if self._is_ours(result, place)]
            self._choose([choice for result in chosen for choice in result["value"]["choices"]], row, place)

    def _read_least(self, task: Mapping[str, Any], row: int, place: str) -> None:
        if self.from_name not in task:
            for key in set(task) - {_ROW, _POOL}:
                self.others.setdefault(checks.one_line(str(key)), []).append(place)
            return
        found = task[self.from_name]
        several = found["choices"] if isinstance(found, dict) else found if isinstance(found, list) else [found]
        self._choose([choice for choice in several if choice not in (None, "")], row, place)

    def _is_ours(self, result: Mapping[str, Any], place: str) -> bool:
        tag, what = result.get("from_name"), result.get("type")
        if tag != self.from_name:
            if what == "choices":
                self.others.setdefault(checks.one_line(str(tag)), []).append(place)
            return False
        if what != "choices":
            got = f"a result of type {what!r}"
            raise checks.expected(f"choices of the tag {tag!r} in {place}", got, "Name a Choices tag by from_name=.")
        return True

    def _choose(self, choices: list[Any], row: int, place: str) -> None:
        if len(choices) > 1:
            got = ", ".join(map(repr, choices))
            remedy = 'Set choice="single" on the Choices tag, and mend the task.'
            raise checks.expected(f"one choice of the tag {self.from_name!r} in {place}", got, remedy)
        self.answers += [Answer(row, self._class(choice), place) for choice in choices]

    def _class(self, choice: Any) -> Any:
        # Label Studio turns numbers into text: the class that reads the same is meant.
        if not isinstance(choice, str):
            return choice
        return next((value for value in self.known if value == choice or str(value) == choice), choice)

    def check_tags(self, path: str) -> None:
        """Refuse answers under other tags alone."""
        if self.others and all(answer.label is SKIPPED for answer in self.answers):
            names = ", ".join(repr(name) for name in sorted(self.others))
            places = list(dict.fromkeys(place for found in self.others.values() for place in found))
            got = f"none, but {names}, in {places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''}"
            remedy = f"Pass from_name={next(iter(sorted(self.others)))!r}, or whichever names the Choices tag."
            raise checks.expected(f"answers under the tag {self.from_name!r} in {path}", got, remedy)
