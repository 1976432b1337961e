"""Fixtures for all tests: seeded torch, the learners that run here, a guard on the global generators."""

import modAL.models
import numpy as np
import pytest
import sklearn
import torch
from packaging.version import Version

import modal_ntk

MODAL_RUNS = Version(sklearn.__version__) < Version("1.8")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(params=["modAL", "modal_ntk"])
def active_learner(request):
    """modAL's class where modAL itself runs, and ours everywhere."""
    if request.param == "modal_ntk":
        return modal_ntk.ActiveLearner
    if not MODAL_RUNS:
        pytest.skip("modAL's own learner cannot teach on scikit-learn 1.8 and later")
    return modAL.models.ActiveLearner
