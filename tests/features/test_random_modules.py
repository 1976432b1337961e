"""Random graphs of layers, with branches, masks, shared weights and gates: none is wrong.

By hand, ``MODAL_NTK_RANDOM_MODULES=2000 python -m pytest tests/features/test_random_modules.py``.
"""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles_samples import relative_error, sample_gradients, weigher
from torch import nn
from torch.nn import functional as F

from modal_ntk.kernels import empirical_ntk

T, D = 3, 4
N_EXAMPLES = int(os.environ.get("MODAL_NTK_RANDOM_MODULES", "100"))


def keep(x):
    """Which tokens are valid, as the samples themselves tell."""
    return x[..., 0] > -0.5


class Step(nn.Module):
    """One step on tokens (n, T, D), drawn by kind; `number` sets how often parameters differ."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.layer, self.other = nn.Linear(D, D), nn.Linear(D, D, bias=False)
        self.vector, self.scalar = nn.Parameter(torch.randn(D)), nn.Parameter(torch.randn(()))
        self.matrix, self.place = nn.Parameter(torch.randn(D, D) / 2), nn.Embedding(T, D)
        self.norm, self.mix = nn.LayerNorm(D), nn.MultiheadAttention(D, 2, batch_first=True)
        self.filter, self.slope = nn.Conv1d(D, D, 3, padding=1), nn.PReLU()
        self.cell, self.table = nn.GRU(D, D, batch_first=True), nn.Embedding(3, D, padding_idx=0)
        nn.init.normal_(self.norm.weight)

    def forward(self, x, given):
        return getattr(self, self.kind)(x, given)

    def dense(self, x, _):
        return torch.tanh(self.layer(x))

    def shared(self, x, _):
        return self.other(torch.tanh(self.other(x)))

    def flat(self, x, _):
        return self.layer(x.reshape(-1, D)).reshape(x.shape)

    def turned(self, x, _):
        return self.layer(x.transpose(0, 1)).transpose(0, 1)

    def gate(self, x, _):
        return x * self.scalar + torch.sigmoid(self.vector) * x

    def bent(self, x, _):
        return self.slope(x) / (1 + self.scalar**2)

    def product(self, x, _):
        return x @ self.matrix + x @ self.matrix.T

    def added(self, x, _):
        return x + self.place(torch.arange(T))[None]

    def normed(self, x, _):
        return self.norm(x)

    def attended(self, x, _):
        return self.mix(x, x, x)[0]

    def scored(self, x, _):
        return (self.layer(x) @ x.mT).softmax(-1) @ self.other(x)

    def recurred(self, x, _):
        return self.cell(x)[0]

    def looked_up(self, x, given):
        return x + self.table((given[..., 1] > 0).long() + (given[..., 2] > 0).long())

    def convolved(self, x, _):
        return self.filter(x.mT).mT

    def valid(self, x, given):
        out = torch.zeros_like(x)
        out[keep(given)] = self.layer(x[keep(given)])
        return out + x

    def masked(self, x, given):
        return x * keep(given)[..., None] + self.layer(x)

    def branch(self, x, given):
        some = given[:, 0, 1] > 0.4
        return x + self.layer(x) * some[:, None, None] if some.any() else x

    def routed(self, x, given):
        some, out = given[:, 0, 1] > 0, x.clone()
        out[some] = self.layer(x[some])
        out[~some] = self.other(x[~some])
        return out

    def still(self, x, _):
        with torch.no_grad():
            shift = self.layer(x)
        return x + shift

    def halted(self, x, _):
        return self.layer(x).detach() * x + self.other(x)

    def functional(self, x, _):
        return F.linear(x, self.layer.weight * self.scalar, self.vector)

    def ordered(self, x, _):
        order = x[:, 0, 0].argsort()
        return self.layer(x[order])[order.argsort()]


KINDS = [name for name, value in vars(Step).items() if callable(value) and name not in ("__init__", "forward")]


class Graph(nn.Module):
    """Steps one after another, each on a sum of what came before, some of them used twice."""

    def __init__(self, kinds, sources, repeats):
        super().__init__()
        self.steps, self.sources, self.repeats = nn.ModuleList(map(Step, kinds)), sources, repeats
        self.head = nn.Linear(D, 3)

    def forward(self, x):
        seen = [x]
        for number, step in enumerate(self.steps):
            taken = seen[-1] + seen[self.sources[number] % len(seen)]
            out = step(taken, x)
            seen.append(step(torch.tanh(out), x) if number in self.repeats else out)
        return self.head(torch.tanh(seen[-1]).mean(1))


@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore:torch.func cannot batch", "ignore:The route", "ignore:None of the inputs")
@settings(deadline=None, max_examples=N_EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    sources=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    repeats=st.sets(st.integers(0, 3), max_size=2),
    method=st.sampled_from(["factored", "factored", "explicit"]),
    kind=st.sampled_from(["pseudo", "labelled", "loss"]),
    n=st.integers(1, 6),
    budget=st.sampled_from([1, 30_000, 2**30]),
    seed=st.integers(0, 10_000),
)
def test_random_modules(kinds, sources, repeats, method, kind, n, budget, seed):
    """The kernel of any graph of steps is that of plain backward passes, sample by sample."""
    torch.manual_seed(seed)
    module, x, y = Graph(kinds, sources, repeats), torch.randn(n, T, D), torch.arange(n) % 3
    rows = sample_gradients(module, x, weigher(kind, y))
    got = empirical_ntk(module, x, kind=kind, labels=y, method=method, memory_budget=budget, dtype=torch.float64)
    assert relative_error(got, rows @ rows.T) < 1e-8
