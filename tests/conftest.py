"""Fixtures for all tests: seeded torch, the learners that run here, a guard on the global generators."""

import gc
import os
import re
from contextlib import ExitStack

import modAL.models
import numpy as np
import pretended
import pytest
import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits

import modal_ntk
from modal_ntk.environment import compatibility
from modal_ntk.testing.situations import CONTAINERS, DEVICE_VARIABLE, LABELS, LEARNERS

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: one thread each.
    torch.set_num_threads(1)
    threadpool_limits(1)

MODAL_RUNS = compatibility.modal_learner_runs()
# How long an example takes says how busy the machine is, and nothing about the law.
settings.register_profile("laws", deadline=None)
settings.load_profile("laws")


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
        pytest.skip("modAL's own learner cannot teach here")
    return modAL.models.ActiveLearner


def pytest_configure(config):
    """Have the pretended device where it is asked for, before modules of tests fit nets as they are read."""
    if os.environ.get(DEVICE_VARIABLE) == pretended.NAME:
        there = ExitStack()
        there.enter_context(pretended.pretended())
        config.add_cleanup(there.close)


def pytest_collection_finish():
    """Leave the million objects that collecting makes out of every later search for garbage."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Count what the contract suite tried: clauses, strategies, learners and inputs."""
    outcomes = {kind: [_contract_id(r) for r in terminalreporter.stats.get(kind, [])] for kind in ("passed", "skipped")}
    passed, skipped = ([found for found in outcomes[kind] if found] for kind in ("passed", "skipped"))
    if not passed:
        return
    clauses = {check.partition("[")[0] for _, check in passed}
    strategies = {strategy for strategy, _ in passed}
    terminalreporter.write_line(
        f"contract: {len(clauses)} clauses, {len({check for _, check in passed})} clauses in cases "
        f"({len(LEARNERS)} learners, {len(CONTAINERS)} containers, {len(LABELS)} label sets), "
        f"{len(strategies)} strategies: {len(passed)} checks passed, {len(skipped)} could not be tried here"
    )


def _contract_id(report):
    found = re.search(r"test_contract\.py::test_contract\[(\w+)-(.+)\]$", report.nodeid)
    return found.groups() if found else None
