"""A session beside a project of Label Studio: a stand-in for the client always, the real server where it is there."""

import os
import shutil
import socket
import subprocess
import time
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from modal_ntk import LabelingSession, Margin
from modal_ntk.errors import InvalidInputError

X = np.random.default_rng(0).normal(size=(20, 2))
CLASSES = ["left", "right"]


class Project:
    """What the library uses of `label_studio_sdk.LabelStudio`, over a list of tasks."""

    def __init__(self):
        self.found = []
        self.projects = SimpleNamespace(import_tasks=self._import)
        self.tasks = SimpleNamespace(list=self._list)

    def _import(self, *, id, request):
        assert id == 7
        for task in request:
            self.found.append(SimpleNamespace(id=len(self.found), annotations=[], **task))

    def _list(self, *, project, fields):
        assert (project, fields) == (7, "all")
        return list(self.found)

    def annotate(self, row, who, choice, *, tag="label"):
        task = next(task for task in self.found if task.data.get("modal_ntk_row") == row)
        result = [{"from_name": tag, "to_name": "item", "type": "choices", "value": {"choices": [choice]}}]
        skipped = choice is None
        task.annotations.append({"result": [] if skipped else result, "was_cancelled": skipped, "completed_by": who})


def shown(row):
    return {"text": f"sample {row}"}


@pytest.fixture
def session(tmp_path):
    return LabelingSession(tmp_path / "labels.sqlite", X, LogisticRegression(), Margin(), classes=CLASSES)


@pytest.fixture
def project():
    return Project()


def test_questions_become_tasks_once(session, project):
    """What is pending is pushed, and not again."""
    rows = session.ask(3)
    assert session.sync(project, 7, shown).n_pushed == 3
    assert session.sync(project, 7, shown).n_pushed == 0
    assert sorted(task.data["modal_ntk_row"] for task in project.found) == sorted(rows)
    assert project.found[0].data["text"] == f"sample {project.found[0].data['modal_ntk_row']}"
    session.ask(2)
    assert session.sync(project, 7, shown).n_pushed == 2


def test_annotations_become_answers_once(session, project):
    """Labels and skips are told, in the session's own classes, and nothing twice."""
    first, second, third = session.ask(3)
    session.sync(project, 7, shown)
    project.annotate(first, 1, "left")
    project.annotate(second, 1, None)
    done = session.sync(project, 7, shown)
    assert (done.n_told, done.answers) == (2, {first: {1: "left"}, second: {1: None}})
    assert session.label_of(first) == "left"
    assert session.skipped.tolist() == [second]
    assert session.pending.tolist() == [third]
    assert session.sync(project, 7, shown).n_told == 0


def test_the_most_frequent_answer_counts(session, project):
    """Of three annotators two decide; who answers again has one vote, the later one."""
    (row,) = session.ask(1)
    session.sync(project, 7, shown)
    for who, choice in ((1, "left"), (2, "right"), (3, "left"), (3, "right"), (1, "right"), (2, "left")):
        project.annotate(row, who, choice)
    done = session.sync(project, 7, shown)
    assert done.answers == {row: {1: "right", 2: "left", 3: "right"}}
    assert session.label_of(row) == "right"
    assert done.disagreements == ()


def test_a_tie_is_told_to_nobody(session, project):
    """It stays pending with everybody's answers at hand, until one more decides it."""
    (row,) = session.ask(1)
    session.sync(project, 7, shown)
    project.annotate(row, 1, "left")
    project.annotate(row, 2, "right")
    done = session.sync(project, 7, shown)
    assert (done.n_told, done.disagreements, done.answers) == (0, (row,), {row: {1: "left", 2: "right"}})
    assert session.pending.tolist() == [row]
    project.annotate(row, 3, "right")
    assert session.sync(project, 7, shown).disagreements == ()
    assert session.label_of(row) == "right"


def test_too_few_annotators_are_waited_for(session, project):
    """With n_annotators=2 one answer is no answer yet."""
    (row,) = session.ask(1)
    session.sync(project, 7, shown)
    project.annotate(row, 1, "left")
    assert session.sync(project, 7, shown, n_annotators=2).n_told == 0
    project.annotate(row, 2, "left")
    assert session.sync(project, 7, shown, n_annotators=2).n_told == 1


def test_a_correction_there_is_one_here(session, project):
    """Where the project says otherwise than the session, the project counts, and the log keeps both."""
    (row,) = session.ask(1)
    session.sync(project, 7, shown)
    session.tell(row, "left")
    project.annotate(row, 1, "right")
    assert session.sync(project, 7, shown).n_told == 1
    assert session.label_of(row) == "right"
    assert [event.value for event in session.events if event.kind == "label"] == ["left", "right"]


def test_tasks_come_with_predictions_and_scores(session, project):
    """Once there are labels of two classes: the class and probability of the estimator fitted to them."""
    session.ask(2)
    session.sync(project, 7, shown)
    session.tell(0 if 0 not in session.pending else 1, "left")
    session.sync(project, 7, shown)
    assert all(not hasattr(task, "predictions") for task in project.found)
    session.tell(int(session.pending[0]), "right")
    rows = session.ask(3)
    session.sync(project, 7, shown)
    model = session.fit()
    for task in project.found[2:]:
        row = task.data["modal_ntk_row"]
        assert row in rows
        p = model.predict_proba(X[row : row + 1])[0]
        (prediction,) = task.predictions
        assert prediction["score"] == pytest.approx(p.max(), rel=1e-12)
        assert prediction["result"][0]["value"]["choices"] == [model.classes_[p.argmax()]]
        assert prediction["result"][0]["from_name"] == "label"
    other = Project()
    session.sync(other, 7, shown, predictions=False)
    assert all(not hasattr(task, "predictions") for task in other.found)


def test_other_pools_in_the_project_are_left_alone(session, project, tmp_path):
    """A project may hold tasks of others."""
    project.found.append(SimpleNamespace(id=0, data={"text": "mine"}, annotations=[]))
    other = LabelingSession(tmp_path / "other.sqlite", X + 1, classes=CLASSES)
    (row,) = other.ask(1)
    other.sync(project, 7, shown)
    project.annotate(row, 1, "left")
    session.ask(1)
    done = session.sync(project, 7, shown)
    assert (done.n_pushed, done.n_told, done.answers) == (1, 0, {})


@pytest.mark.parametrize(("choice", "tag", "said"), [("up", "label", "up"), ("left", "side", "from_name='side'")])
def test_what_cannot_be_used_is_refused_whole(session, project, choice, tag, said):
    """A class that is none, and answers under another tag alone, are told, and nothing else is then."""
    good, bad = session.ask(2)
    session.sync(project, 7, shown)
    project.annotate(good, 1, "left")
    project.annotate(bad, 1, choice, tag=tag)
    with pytest.raises(InvalidInputError, match=said):
        session.sync(project, 7, shown)
    assert session.label_of(good) is None


SERVER = os.environ.get("MODAL_NTK_LABEL_STUDIO") or shutil.which("label-studio")
TOKEN = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server(tmp_path):
    """Label Studio on SQLite in a folder of its own; stopped afterwards."""
    sdk, httpx = pytest.importorskip("label_studio_sdk"), pytest.importorskip("httpx")
    if not SERVER:
        pytest.skip("label-studio is not installed; MODAL_NTK_LABEL_STUDIO may name its command")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path), "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false", "LABEL_STUDIO_USERNAME": "ann@example.com",
        "LABEL_STUDIO_PASSWORD": "secret-pass-1", "LABEL_STUDIO_USER_TOKEN": TOKEN,
    }  # fmt: skip
    command = [SERVER, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log, cwd=tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urlopen(f"{url}/health", timeout=5).close()
                break
            except (URLError, OSError):
                assert run.poll() is None, (tmp_path / "log").read_text(errors="replace")[-2000:]
                time.sleep(1)
        with httpx.Client(timeout=60) as http:
            yield sdk.LabelStudio(base_url=url, api_key=TOKEN, httpx_client=http)
    finally:
        run.terminate()
        run.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_with_the_real_server(session, server):
    """Questions, predictions, annotations and skips go through a real project and come back."""
    config = '<View><Text name="item" value="$text"/><Choices name="label" toName="item" choice="single">'
    config += '<Choice value="left"/><Choice value="right"/></Choices></View>'
    project = server.projects.create(title="pool", label_config=config).id
    session.tell(0, "left")
    session.tell(1, "right")
    rows = session.ask(3)
    assert session.sync(server, project, shown).n_pushed == 3
    assert session.sync(server, project, shown).n_pushed == 0
    tasks = {task.data["modal_ntk_row"]: task for task in server.tasks.list(project=project, fields="all")}
    assert sorted(tasks) == sorted(rows)
    scores = [task.predictions[0] for task in tasks.values()]
    scores = [found["score"] if isinstance(found, dict) else found.score for found in scores]
    assert all(0.5 <= score <= 1 for score in scores)
    result = [{"from_name": "label", "to_name": "item", "type": "choices", "value": {"choices": ["right"]}}]
    server.annotations.create(id=tasks[rows[0]].id, result=result)
    server.annotations.create(id=tasks[rows[1]].id, result=[], was_cancelled=True)
    done = session.sync(server, project, shown)
    assert done.n_told == 2
    assert session.label_of(rows[0]) == "right"
    assert session.skipped.tolist() == [rows[1]]
    assert session.pending.tolist() == [rows[2]]
