"""A short form of tests/benchmarks/endurance.py: what it counts, memory apart, stays as it is."""

import gc

import endurance
import pytest

import modal_ntk


@pytest.fixture(autouse=True)
def _younger_objects_only():
    # Of the million objects that the suite holds none is looked through for each count.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("name", [registered.name for registered in modal_ntk.list_strategies()])
def test_rounds_leave_nothing_behind(name):
    """Between rounds 2 and 8 no tensor, hook, file, thread or process is left behind."""
    early, late = endurance.rounds(name, 8, (2, 8))
    assert {kind: late[kind] - early[kind] for kind in early if kind != "bytes"} == dict.fromkeys(
        ("tensors", "hooks", "files", "threads", "processes"), 0
    )
