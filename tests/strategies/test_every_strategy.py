"""Every registered strategy at its limits: under input nobody would choose, and over many rounds.

Set ``MODAL_NTK_FUZZ`` to the number of examples a strategy is given; the default is small.
"""

from __future__ import annotations

import os
import warnings

import endurance
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import modal_ntk
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.testing.situations import Situation, skorch_net
from modal_ntk.testing.trial import check_form

N_EXAMPLES = int(os.environ.get("MODAL_NTK_FUZZ", "8"))

pools = st.fixed_dictionaries(
    {
        "n_pool": st.integers(1, 30),
        "n_labeled": st.integers(1, 12),
        "d": st.integers(1, 7),
        "n_classes": st.integers(2, 5),
        "n_seen": st.integers(1, 5),
        "scale": st.sampled_from([1e-6, 1.0, 1e6]),
        "offset": st.sampled_from([0.0, 1e3]),
        "rank": st.sampled_from([1, 2, 7]),
        "n_distinct": st.integers(1, 30),
        "sharpness": st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
        "dtype": st.sampled_from([np.float32, np.float64]),
        "n_instances": st.floats(0, 1),
        "seed": st.integers(0, 2**31 - 1),
    }
)


class Net(nn.Module):
    """Brings the input back to ordinary size, and is as sure of its answers as it is told to be."""

    def __init__(self, d, n_classes, scale, offset, sharpness):
        super().__init__()
        self.scale, self.offset, self.sharpness = scale, offset, sharpness
        self.hidden = nn.Linear(d, 6)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, n_classes)

    def forward(self, x):
        x = (x - self.offset) / self.scale
        return self.head(self.drop(torch.relu(self.hidden(x)))) * self.sharpness


def situation(n_pool, n_labeled, d, n_classes, n_seen, scale, offset, rank, n_distinct, sharpness, dtype, seed):
    """Few distinct rows of low rank, shifted and scaled; some classes without a label."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_distinct, rank)) @ rng.normal(size=(rank, d))
    X = (rows[rng.integers(n_distinct, size=n_pool + n_labeled)] * scale + offset).astype(dtype)
    y = rng.integers(min(n_seen, n_classes), size=n_labeled)
    options = {
        f"module__{name}": value
        for name, value in {
            "d": d,
            "n_classes": n_classes,
            "scale": scale,
            "offset": offset,
            "sharpness": sharpness,
        }.items()
    }
    net = skorch_net(Net, n_classes=n_classes, max_epochs=1, lr=1e-6, **options).initialize()
    net.module_.to(torch.float64 if dtype is np.float64 else torch.float32)
    return Situation(net.partial_fit(X[:n_labeled], y), X[n_labeled:], X[:n_labeled], y)


def strategy(registered):
    """The strategy with its defaults; a critic of one's own serves where one is needed."""
    made = registered.spec.factory(random_state=0)
    return made.set_params(critic=lambda X: np.tanh(np.asarray(X)).mean(axis=1)) if "critic" in made.needs else made


@pytest.mark.parametrize("registered", modal_ntk.list_strategies(), ids=lambda r: r.name)
@settings(max_examples=N_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=pools)
def test_any_finite_input_gives_distinct_finite_picks(registered, drawn):
    """No crash, no wrong length, no NaN out of finite input, whatever its shape, size, rank, labels and type."""
    n_instances = 1 + round(drawn.pop("n_instances") * (drawn["n_pool"] - 1))
    case = situation(**drawn)
    with warnings.catch_warnings():
        # That there are few distinct rows or few labels may be said.
        warnings.simplefilter("ignore", ModalNTKWarning)
        selected = case.select(strategy(registered), n_instances)
    check_form(selected, n_instances, drawn["n_pool"])


@pytest.mark.parametrize("name", [registered.name for registered in modal_ntk.list_strategies()])
def test_rounds_leave_nothing_behind(name):
    """Between rounds 2 and 8 no tensor, hook, file, thread or process is left behind."""
    # In short what tests/benchmarks/endurance.py counts.
    early, late = endurance.rounds(name, 8, (2, 8))
    assert {kind: late[kind] - early[kind] for kind in early if kind != "bytes"} == dict.fromkeys(
        ("tensors", "hooks", "files", "threads", "processes"), 0
    )
