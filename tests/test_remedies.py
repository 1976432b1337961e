"""What the package's errors tell users to do can be done: the code, parameters and extras they name are there."""

import ast
import importlib.metadata
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn
import skorch
from skorch import NeuralNetClassifier
from torch import nn

import modal_ntk
from modal_ntk import bench, checks, features, kernels, nets, pruning, selection, structure, testing
from modal_ntk.errors import MissingExtraError, UnmetNeedError
from modal_ntk.pruning import LpNTKPruner, find_label_conflicts

PACKAGE = Path(modal_ntk.__file__).parent
SPEAKS = {"expected", "unknown_name", "warn"}


def sentences():
    """Return every text of the package that is raised, warned of, or named a remedy, with where it stands."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            told = isinstance(node, ast.Raise)
            told |= isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in SPEAKS
            named = [t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)]
            told |= isinstance(node, ast.Assign) and bool({"remedy", "message", "_WRAP"} & set(named))
            if told or (isinstance(node, ast.Return) and path.name == "remedies.py"):
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and " " in part.value:
                        yield f"{path.relative_to(PACKAGE)}:{part.lineno}", part.value


def callables():
    """Return what users call, by name: ours, skorch's and scikit-learn's base."""
    found = {}
    for module in (modal_ntk, bench, features, kernels, nets, pruning, selection, structure, testing, skorch, nn):
        for name in getattr(module, "__all__", dir(module)):
            value = getattr(module, name, None)
            if callable(value):
                found[name] = value
    return found


CALLABLES = callables()


def parameters(value):
    try:
        names = set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return set()
    for method in vars(value).values() if inspect.isclass(value) else ():
        if inspect.isfunction(method):
            names |= set(inspect.signature(method).parameters)
    return names


# A word that stands for any parameter, NumPy's, Label Studio's; and what scikit-learn hands on to `fit`.
ELSEWHERE = {"parameter", "axis", "choice", "X_unlabeled"}
PARAMETERS = set().union(*(parameters(value) for value in CALLABLES.values())) | ELSEWHERE


def test_there_are_sentences_to_read():
    """The collection below is no empty one."""
    assert len(list(sentences())) > 300


def test_every_parameter_that_a_message_names_exists():
    """``name=value`` in a message is a parameter of something public."""
    wrong = [
        (where, name)
        for where, text in sentences()
        for name in re.findall(r"\b([a-z][a-z_0-9]+)=", text)
        if name not in PARAMETERS
    ]
    assert wrong == []


def test_every_class_that_a_message_calls_exists():
    """``Name(...)`` in a message is a class of this library, skorch, scikit-learn or torch."""
    elsewhere = {name for module in ("calibration", "linear_model", "pipeline", "preprocessing")
                 for name in dir(getattr(__import__(f"sklearn.{module}"), module))}  # fmt: skip
    known = set(CALLABLES) | elsewhere | set(dir(sklearn))
    wrong = [
        (where, name)
        for where, text in sentences()
        for name in re.findall(r"\b([A-Z]\w+)\(", text)
        if name not in known
    ]
    assert wrong == []


def test_every_extra_that_is_asked_for_is_declared():
    """`check_installed(..., extra=...)` names an extra of the distribution."""
    declared = set(importlib.metadata.metadata("modal-ntk").get_all("Provides-Extra"))
    asked = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        asked |= set(re.findall(r'extra="([\w-]+)"', path.read_text("utf-8")))
        asked |= set(re.findall(r"modal-ntk\[([\w-]+)\]", path.read_text("utf-8")))
    assert asked
    assert asked <= declared


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, 'pip install "modal-ntk[ann]"'),
        ({"url": "https://host/modal_ntk.whl", "archive_info": {}}, 'pip install "modal-ntk[ann]"'),
        ({"url": "file:///home/me/my%20code", "dir_info": {}}, 'pip install "/home/me/my code[ann]"'),
        ({"url": "file:///home/me/code", "dir_info": {"editable": True}}, 'pip install -e "/home/me/code[ann]"'),
    ],
)
def test_extras_are_named_as_they_install_here(record, command, monkeypatch):
    """From an index by name; from a checkout by its path, editable if it is."""
    text = None if record is None else json.dumps(record)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: SimpleNamespace(read_text=lambda file: text))
    with pytest.raises(MissingExtraError) as caught:
        checks.check_installed("The search", ["no_such_module"], extra="ann")
    assert str(caught.value).endswith(f"Run: {command}")


class TestPruning:
    """Remedies of what reads a fitted net."""

    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    y = np.arange(20) % 2

    def net(self):
        return NeuralNetClassifier(nn.Linear(3, 2), criterion=nn.CrossEntropyLoss, train_split=None, verbose=0)

    def test_conflicts_of_an_unfitted_net(self):
        """Both ways out work: to fit it, and ``n_folds``; ``prefit`` is no parameter here."""
        net = self.net()
        with pytest.raises(UnmetNeedError, match=r"`estimator.fit\(X, y\)`, or pass `n_folds=5`"):
            find_label_conflicts(net, self.X, self.y)
        assert len(find_label_conflicts(net, self.X, self.y, n_folds=5).scores) == 20
        assert len(find_label_conflicts(net.fit(self.X, self.y), self.X, self.y).scores) == 20

    @pytest.mark.filterwarnings("ignore:LpNTKPruner")
    def test_a_pruner_of_an_unfitted_net(self):
        """Here ``prefit=False`` is the parameter."""
        with pytest.raises(UnmetNeedError, match="or pass `prefit=False`"):
            LpNTKPruner(self.net(), prefit=True).fit(self.X, self.y)
        LpNTKPruner(self.net(), prefit=False, random_state=0).fit(self.X, self.y)

    @pytest.mark.filterwarnings("ignore:LpNTKPruner")
    @pytest.mark.parametrize("prefit", [True, False])
    def test_what_is_no_net_is_to_be_one(self, prefit):
        """The code between backquotes makes an estimator that is taken."""
        from sklearn.linear_model import LogisticRegression

        with pytest.raises(UnmetNeedError, match="skorch net") as caught:
            LpNTKPruner(LogisticRegression().fit(self.X, self.y), prefit=prefit).fit(self.X, self.y)
        (code,) = re.findall(r"`([^`]+)`", str(caught.value))
        names = {"NeuralNetClassifier": NeuralNetClassifier, "module": nn.Linear(3, 2), "nn": nn}
        made = eval(code, names).set_params(verbose=0, train_split=None)
        LpNTKPruner(made.fit(self.X, self.y), prefit=prefit, random_state=0).fit(self.X, self.y)
