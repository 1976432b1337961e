"""A session beside a project of Label Studio: questions go there as tasks, annotations come back as answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modal_ntk import checks, nets
from modal_ntk.labeling.exchange import SKIPPED, Answer, Tasks, choice_of, import_answers, task_of
from modal_ntk.labeling.record import Record


@dataclass(frozen=True)
class Synced:
    """What `LabelingSession.sync` did.

    Parameters
    ----------
    n_pushed : int
        Questions that became tasks.
    n_told : int
        Answers that were new to the session.
    answers : dict of int to dict
        For every row somebody has answered, the label each annotator gave last; None for a skip.
    disagreements : tuple of int
        Rows on which no answer has more votes than every other: these stay pending.
    """

    n_pushed: int
    n_told: int
    answers: dict[int, dict[Any, Any]] = field(repr=False)
    disagreements: tuple[int, ...]


def sync(
    record: Record,
    client: Any,
    project: int,
    data: Callable[[int], Mapping[str, Any]],
    *,
    estimator: Any,
    n_annotators: int,
    from_name: str,
    to_name: str,
) -> Synced:
    """Exchange questions and answers; see `LabelingSession.sync`. `estimator`: fitted, for predictions, or None."""
    checks.check_integer("n_annotators", n_annotators)
    found = {row: by for row, by in _annotations(record, client, project, from_name) if row is not None}
    answers = {row: by for row, by in found.items() if by}
    agreed, divided = _votes(answers, n_annotators)
    n_told = import_answers(record, agreed)
    new = np.setdiff1d(record.pending, np.array(list(found), np.int64))
    tasks = [task_of(record, row, data) for row in new.tolist()]
    if estimator is not None and len(new):
        for task, prediction in zip(tasks, _predictions(record, estimator, new, from_name, to_name), strict=True):
            task["predictions"] = [prediction]
    if tasks:
        client.projects.import_tasks(id=project, request=tasks)
    given = {row: {who: None if a is SKIPPED else a for who, a in by.items()} for row, by in answers.items()}
    return Synced(len(tasks), n_told, given, divided)


def _annotations(
    record: Record, client: Any, project: int, from_name: str
) -> Iterator[tuple[int | None, dict[Any, Any]]]:
    # For each task of this pool its row, and what each annotator said last. Tasks of others are left alone.
    for task in client.tasks.list(project=project, fields="all"):
        values = task if isinstance(task, Mapping) else vars(task)
        if values["data"].get(Tasks.POOL) != record.pool:
            continue
        reader, by = Tasks(record, from_name), {}
        row = reader.row_of(values["data"], f"task {values['id']}")
        for annotation in values.get("annotations") or ():
            one = {"data": values["data"], "annotations": [_as_dict(annotation)]}
            seen = len(reader.answers)
            reader.read(one, f"task {values['id']}")
            if len(reader.answers) > seen:
                by[_author(annotation)] = reader.answers[-1].label
        reader.check_tags(f"project {project}")
        yield row, by


def _as_dict(annotation: Any) -> dict[str, Any]:
    return dict(annotation) if isinstance(annotation, Mapping) else dict(vars(annotation))


def _author(annotation: Any) -> Any:
    by = _as_dict(annotation).get("completed_by")
    return by.get("id") if isinstance(by, Mapping) else by


def _votes(answers: Mapping[int, Mapping[Any, Any]], n_annotators: int) -> tuple[list[Answer], tuple[int, ...]]:
    agreed, divided = [], []
    for row, by in answers.items():
        if len(by) < n_annotators:
            continue
        (label, most), *others = Counter(by.values()).most_common()
        if others and others[0][1] == most:
            divided.append(row)
        else:
            agreed.append(Answer(row, label, f"the task of row {row}"))
    return agreed, tuple(divided)


def _predictions(
    record: Record, estimator: Any, rows: np.ndarray, from_name: str, to_name: str
) -> Iterator[dict[str, Any]]:
    view = nets.NetView(estimator)
    p = view.probabilities(nets.take_rows(record.X_pool, rows))
    labels = view.labels_at(p.argmax(dim=1).numpy(), p.shape[1])
    version = f"modal_ntk, {len(record.labels)} labels"
    for label, score in zip(labels.tolist(), p.amax(dim=1).tolist(), strict=True):
        yield {"model_version": version, "score": score, "result": [choice_of(label, from_name, to_name)]}
