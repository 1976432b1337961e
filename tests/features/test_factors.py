"""Inner products of gradients in the form they arise in, against the same gradients written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.features import factors
from modal_ntk.features.factors import Dense, Lookup, Outer, add_gram, joined, products, squared_norms
from modal_ntk.features.sketches import sketch

F64 = {"dtype": torch.float64}


def drawn(form, n, shape, generator):
    groups, positions, a, b = shape
    if form == "dense":
        return Dense(torch.randn(n, a * b, generator=generator, **F64))
    if form == "lookup":
        outputs = torch.randn(n, positions, b, generator=generator, **F64)
        return Lookup(torch.randint(0, a, (n, positions), generator=generator), outputs, a)
    inputs = torch.randn(n, groups, positions, a, generator=generator, **F64)
    return Outer(inputs, torch.randn(n, groups, positions, b, generator=generator, **F64))


def written_out(factor):
    """Gradients (n, p) by loops over their definition."""
    if isinstance(factor, Dense):
        return factor.gradient
    rows = []
    for i in range(len(factor)):
        if isinstance(factor, Lookup):
            table = torch.zeros(factor.n_lines, factor.outputs.shape[2], **F64)
            for line, d in zip(factor.indices[i].tolist(), factor.outputs[i], strict=True):
                table[line] += d
            rows.append(table.flatten())
            continue
        by_group = []
        for h, d in zip(factor.inputs[i], factor.outputs[i], strict=True):
            by_group.append(sum(torch.outer(d[t], h[t]) for t in range(len(h))))
        rows.append(torch.stack(by_group).flatten())
    return torch.stack(rows)


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


@settings(deadline=None, max_examples=60)
@given(
    form=st.sampled_from(["dense", "outer", "lookup"]),
    shape=SHAPES,
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    budget=st.sampled_from([1, 1000, 2**30]),
    pairwise=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_way_gives_the_same_kernel(form, shape, n, m, budget, pairwise, seed):
    """Pairwise or written out, in whatever steps, between two sets and within one: G G'. Also norms and products."""
    generator = torch.Generator().manual_seed(seed)
    left, right = drawn(form, n, shape, generator), drawn(form, m, shape, generator)
    g, h = written_out(left), written_out(right)
    torch.testing.assert_close(left.dense(), g)
    assert left.size == g.shape[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factors, "_dense_cost", lambda *_: float("inf") if pairwise else -1.0)
        out = torch.ones(n, m, **F64)
        add_gram(out, left, right, budget=budget)
        torch.testing.assert_close(out, 1 + g @ h.T)
        square = torch.zeros(n, n, **F64)
        add_gram(square, left, left, budget=budget)
        torch.testing.assert_close(square.triu(), (g @ g.T).triu())
    torch.testing.assert_close(squared_norms(left), g.square().sum(1))
    vector = torch.randn(g.shape[1], generator=generator, **F64)
    torch.testing.assert_close(products(left, vector), g @ vector)


@pytest.mark.parametrize("budget", [100, 2**30])
def test_a_long_table_is_never_written_out(budget, monkeypatch):
    """Rows that read few lines of a long table meet in these lines alone; lines read often, and twice, count so."""
    generator = torch.Generator().manual_seed(1)
    monkeypatch.setattr(Lookup, "dense", None)
    few = [drawn("lookup", n, (1, 5, 7, 3), generator) for n in (6, 4)]
    left, right = (Lookup(f.indices * 10**7, f.outputs, 10**8) for f in few)
    g, h = map(written_out, few)
    out = torch.ones(6, 4, **F64)
    add_gram(out, left, right, budget=budget)
    torch.testing.assert_close(out, 1 + g @ h.T)
    torch.testing.assert_close(squared_norms(left), g.square().sum(1))


@settings(deadline=None, max_examples=30)
@given(form=st.sampled_from(["dense", "outer", "lookup"]), shape=SHAPES, seed=st.integers(0, 1000))
def test_several_uses_add_up(form, shape, seed):
    """The gradient of a parameter used twice is the sum of the two; unlike forms are not joined."""
    generator = torch.Generator().manual_seed(seed)
    one, two = drawn(form, 3, shape, generator), drawn(form, 3, shape, generator)
    torch.testing.assert_close(joined([one, two]).dense(), written_out(one) + written_out(two))
    other = drawn("dense" if form != "dense" else "outer", 3, shape, generator)
    assert joined([one, other]) is None


@pytest.mark.parametrize("form", ["dense", "outer", "lookup"])
@pytest.mark.parametrize("positions", [1, 40])
def test_sketches_keep_inner_products_on_average(form, positions):
    """Mean over seeds of the features' inner products is G G', within five standard errors, with error 1/sqrt(dim)."""
    generator = torch.Generator().manual_seed(0)
    factor = drawn(form, 4, (2, positions, 6, 5), generator)
    want = written_out(factor) @ written_out(factor).T
    spread = {}
    for dim in (4, 16):
        draws = [sketch(factor, dim, seed, keep_small=False) for seed in range(400)]
        assert draws[0].shape == (4, dim)
        grams = torch.stack([d @ d.T for d in draws])
        assert ((grams.mean(0) - want).abs() <= 5 * grams.std(0) / 20 + 1e-9).all()
        spread[dim] = float((grams - want).square().mean().sqrt())
    assert 1.6 < spread[4] / spread[16] < 2.5
