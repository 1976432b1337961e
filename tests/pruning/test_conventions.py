"""Pruners keep scikit-learn's and imbalanced-learn's own checks; those that do not apply are named with the reason."""

import importlib.util

import numpy as np
import pytest
import zoo
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelEncoder
from sklearn.utils import estimator_checks as sklearn_checks
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk.pruning import EL2N, ForgettingScore, GraNd, LpNTKPruner

HAS_IMBLEARN = importlib.util.find_spec("imblearn") is not None
NOT_APPLYING = {
    "check_samplers_multiclass_ova": "labels are one per sample, one-hot matrices are refused",
    "check_estimator_sparse_array": "whether sparse samples are taken is for the net's earlier steps to say",
    "check_estimator_sparse_matrix": "whether sparse samples are taken is for the net's earlier steps to say",
}


class Linear(nn.Module):
    def __init__(self, d=2, n_classes=2):
        super().__init__()
        self.layer = nn.Linear(d, n_classes)

    def forward(self, x):
        return self.layer(x)


class Sized(NeuralNetClassifier):
    """A net that takes its sizes from the data and numbers the labels itself."""

    def fit(self, X, y, **fit_params):
        self.encoder_ = LabelEncoder().fit(y)
        self.set_params(module__d=X.shape[1], module__n_classes=len(self.encoder_.classes_))
        return super().fit(X, self.encoder_.transform(y).astype(np.int64), **fit_params)

    @property
    def classes_(self):
        return self.encoder_.classes_


def _dense(X):
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32)


def pruners():
    net = Sized(Linear, criterion=nn.CrossEntropyLoss, train_split=None, max_epochs=2, verbose=0, batch_size=64)
    whole = make_pipeline(FunctionTransformer(_dense, validate=True, accept_sparse=True), net)
    few = {"n_models": 1, "n_epochs": 1}
    return [
        LpNTKPruner(whole, random_state=0),
        EL2N(whole, random_state=0, **few),
        GraNd(whole, random_state=0, **few),
        ForgettingScore(whole, random_state=0),
    ]


def _cases(generator, estimators):
    for estimator in estimators:
        for instance, check in generator(estimator):
            name = getattr(check, "func", check).__name__
            marks = [pytest.mark.skip(reason=NOT_APPLYING[name])] if name in NOT_APPLYING else []
            yield pytest.param(instance, check, marks=marks, id=f"{type(estimator).__name__}-{name}")


def _imblearn_cases():
    if not HAS_IMBLEARN:
        return [pytest.param(None, None, marks=pytest.mark.skip(reason="needs imbalanced-learn"))]
    from imblearn.utils import estimator_checks

    return list(_cases(estimator_checks.estimator_checks_generator, pruners()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("pruner", "check"), _imblearn_cases())
def test_imbalanced_learn(pruner, check):
    """The check passes."""
    check(pruner)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not hasattr(sklearn_checks, "estimator_checks_generator"), reason="scikit-learn before 1.6")
@pytest.mark.parametrize(
    ("pruner", "check"), [*_cases(getattr(sklearn_checks, "estimator_checks_generator", lambda _: []), pruners()[:2])]
)
def test_scikit_learn(pruner, check):
    """The check passes."""
    check(pruner)


@pytest.mark.skipif(not HAS_IMBLEARN, reason="needs imbalanced-learn")
@pytest.mark.filterwarnings("ignore")
def test_a_step_of_imbalanced_learns_pipeline():
    """In a Pipeline the classifier is fitted to what the pruner kept, predicts on everything, and can be searched."""
    from imblearn.pipeline import make_pipeline as make_imblearn_pipeline

    X, y = zoo.blobs(n=60)
    pruner = LpNTKPruner(zoo.net(), mode="centres", random_state=0)
    kept = pruner.fit(X, y).sample_indices_
    model = make_imblearn_pipeline(pruner, LogisticRegression()).fit(X, y)
    alone = LogisticRegression().fit(X[kept], y[kept])
    np.testing.assert_allclose(model[-1].coef_, alone.coef_)
    assert len(model.predict(X)) == 60
    search = GridSearchCV(model, {"lpntkpruner__mode": ["centres", "prune_head"]}, cv=2).fit(X, y)
    assert search.best_params_["lpntkpruner__mode"] in ("centres", "prune_head")
