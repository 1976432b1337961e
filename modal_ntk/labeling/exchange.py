"""Labels from and to other programs: CSV and Label Studio."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modal_ntk import checks
from modal_ntk.errors import InvalidInputError
from modal_ntk.writing import marked, replacing

if TYPE_CHECKING:
    from modal_ntk.labeling.session import LabelingSession

SKIPPED = object()
Answer = tuple[int, Any]
_ROW, _POOL = "modal_ntk_row", "modal_ntk_pool"


def plain(label: Any) -> Any:
    """Return a label as JSON holds it.

    Parameters
    ----------
    label : object
        Text, number or truth value, of Python or NumPy.

    Returns
    -------
    str, int, float or bool
        Of Python.

    Raises
    ------
    InvalidInputError
        If it is anything else.

    Examples
    --------
    >>> plain(np.int64(3)), plain(np.str_("cat"))
    (3, 'cat')
    """
    value = label.item() if isinstance(label, np.generic) else label
    if not isinstance(value, (str, int, float)) or value != value or value in (float("inf"), float("-inf")):
        raise checks.expected("a label that is text, a number or a truth value", repr(label), "Convert it first.")
    if isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        # NumPy takes a trailing NUL away, which would make one class of two; half a pair of characters is no text.
        raise checks.expected("a label of characters that can be written", repr(label), "Take them out first.")
    return value


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "a truth value" if isinstance(value, bool) else "a number"


def check_label(label: Any, classes: Sequence[Any] | None, other: Any) -> None:
    """Check that a label is one of the classes, or of the kind of another label.

    Parameters
    ----------
    label : str, int, float or bool
        The label.
    classes : sequence or None
        What there may be.
    other : object
        A label that is there already; None if there is none.

    Raises
    ------
    InvalidInputError
        If it is not: 1 and "1" would be two classes.
    """
    if classes is not None:
        if not any(label == known and _kind(label) == _kind(known) for known in classes):
            listing = ", ".join(map(repr, classes))
            raise checks.expected(f"a label that is one of {listing}", repr(label), "Name one of the classes.")
    elif other is not None and _kind(label) != _kind(other):
        got = f"{label!r}, beside {other!r}"
        raise checks.expected(f"a label that is {_kind(other)} like the others", got, "Keep to one kind of label.")


def check_classes(classes: Sequence[Any]) -> list[Any]:
    """Return classes as JSON holds them.

    Parameters
    ----------
    classes : sequence
        Labels.

    Returns
    -------
    list
        Of Python's values.

    Raises
    ------
    InvalidInputError
        If there are fewer than two, two alike, or of different kinds.
    """
    values = [plain(label) for label in classes]
    if len(set(values)) != len(values) or len(values) < 2 or len({_kind(value) for value in values}) > 1:
        raise checks.expected("two distinct classes or more, of one kind", repr(values), "Name each class once.")
    return values


def check_names(names: Sequence[str], n: int) -> list[str]:
    """Return names of samples as a list.

    Parameters
    ----------
    names : sequence of str
        One for each sample.
    n : int
        Number of samples.

    Returns
    -------
    list of str
        The names.

    Raises
    ------
    InvalidInputError
        If they are not n distinct texts.
    """
    found = [str(name) for name in names]
    if len(found) != n or len(set(found)) != n:
        got = f"{len(found)} with {len(set(found))} distinct"
        raise checks.expected(f"{n} distinct names, one for each sample", got, "Leave names out, or make them so.")
    return found


def import_answers(session: LabelingSession, answers: Iterable[Answer]) -> int:
    """Tell a session what others have answered.

    Parameters
    ----------
    session : LabelingSession
        The session.
    answers : iterable of (int, object)
        Rows with their label, or `SKIPPED`; the last counts.

    Returns
    -------
    int
        How many answers were new.

    Raises
    ------
    InvalidInputError
        If a label is unusable; nothing is told then.
    """
    last = dict(answers)
    other = next(iter(session.labels.tolist()), None)
    for label in last.values():
        if label is not SKIPPED:
            check_label(label, session.classes, other)
            other = label if other is None else other
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


def export_csv(session: LabelingSession, path: str | os.PathLike[str]) -> None:
    """Write `session` as CSV; see `LabelingSession.export_csv`."""
    labels = dict(zip(session.labeled.tolist(), session.labels.tolist(), strict=True))
    skipped = set(session.skipped.tolist())
    with replacing(Path(path)) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "name", "status", "label"])
        for row in sorted({*labels, *skipped, *session.pending.tolist()}):
            status = "labelled" if row in labels else "skipped" if row in skipped else "pending"
            name = "" if session.names is None else marked(session.names[row])
            writer.writerow([row, name, status, _written(labels[row]) if row in labels else ""])


def _written(label: Any) -> str:
    # Text that would be read as a number or truth value is put in quotes, as JSON has it.
    if not isinstance(label, str):
        return json.dumps(label)
    return json.dumps(label) if not isinstance(_read(label), str) or label[:1] == '"' or not label else marked(label)


def _read(cell: str) -> Any:
    if cell.startswith("'"):
        return cell[1:]
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return value if isinstance(value, (str, int, float)) else cell


def read_csv(session: LabelingSession, path: str | os.PathLike[str]) -> list[Answer]:
    """Read answers; see `LabelingSession.import_csv`."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise checks.expected(f"a CSV file at {path}", str(error), "Save it as CSV in UTF-8.") from error
    if lines and not ({"row", "name"} & set(lines[0]) and "label" in lines[0]):
        got = ", ".join(map(repr, lines[0]))
        raise checks.expected(f"columns row or name, and label in {path}", got, "Name the columns so.")
    answers = []
    for number, line in enumerate(lines, start=2):
        label, status = line.get("label") or "", line.get("status") or ""
        if label or status == "skipped":
            row = _row(session, line, f"line {number} of {path}")
            answers.append((row, _as_class(session, plain(_read(label))) if label else SKIPPED))
    return answers


def _row(session: LabelingSession, line: Mapping[str, Any], where: str) -> int:
    name = _unmarked(str(line.get("name") or ""))
    if name and session.names is not None:
        if name not in session.names:
            raise checks.expected(f"the name of a sample in {where}", repr(name), "Use the names of this pool.")
        return session.names.index(name)
    row = line.get("row")
    text = str(row).strip()
    n = checks.n_rows(session.X_pool)
    if isinstance(row, bool) or not (text.isascii() and text.isdigit()) or int(text) >= n:
        raise checks.expected(f"a row from 0 to {n - 1} in {where}", repr(row), "Rows are positions in X_pool.")
    return int(text)


def _unmarked(text: str) -> str:
    return text[1:] if text.startswith("'") else text


def _as_class(session: LabelingSession, label: Any) -> Any:
    # Other programs turn numbers into text: the class that reads the same is meant.
    known = session.classes or session.labels.tolist()
    if any(label == value and _kind(label) == _kind(value) for value in known):
        return label
    return next((value for value in known if str(value) == str(label)), label)


def export_label_studio(
    session: LabelingSession,
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
        task: dict[str, Any] = {"data": {**data(row), _ROW: row, _POOL: session.pool}}
        if row in labels:
            choice = {"from_name": from_name, "to_name": to_name, "type": "choices"}
            task["annotations"] = [{"result": [{**choice, "value": {"choices": [str(labels[row])]}}]}]
        elif row in skipped:
            task["annotations"] = [{"result": [], "was_cancelled": True}]
        tasks.append(task)
    with replacing(Path(path)) as draft:
        draft.write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")


def read_label_studio(session: LabelingSession, path: str | os.PathLike[str], from_name: str) -> list[Answer]:
    """Read answers; see `LabelingSession.import_label_studio`."""
    remedy = "Export the project as JSON or JSON-MIN, without changing the tasks' data."
    try:
        tasks = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(tasks, list):
            raise ValueError("no list of tasks")
        return [answer for task in tasks for answer in _answers(session, task, from_name, str(path))]
    except InvalidInputError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        got = checks.one_line(f"{type(error).__name__}: {error}")
        raise checks.expected(f"{path} to be an export of Label Studio", got, remedy) from error


def _answers(session: LabelingSession, task: dict[str, Any], from_name: str, path: str) -> list[Answer]:
    data = task.get("data", task)
    if data.get(_POOL) != session.pool:
        got = f"{data.get(_POOL)!r}"
        raise checks.expected(f"tasks of this pool, {session.pool}, in {path}", got, "Import the export of its tasks.")
    row = _row(session, {"row": data.get(_ROW)}, path)
    if "annotations" not in task:  # JSON-MIN has the choice beside the data
        return [(row, _as_class(session, plain(task[from_name])))] if task.get(from_name) else []
    found: list[Answer] = []
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            found.append((row, SKIPPED))
        for result in annotation["result"]:
            if result.get("type") == "choices" and result.get("from_name") == from_name:
                (choice,) = result["value"]["choices"]
                found.append((row, _as_class(session, plain(choice))))
    return found
