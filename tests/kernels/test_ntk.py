"""The empirical NTK against its definition."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_kernels import KINDS, NETS, jacobian, kernel_oracle, nets
from oracles_samples import relative_error
from torch import nn

from modal_ntk.kernels import empirical_ntk

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


@functools.cache
def wanted(name):
    """A net with its samples, their labels, and the oracle's kernels of every kind, of which any block is a part."""
    torch.manual_seed(0)
    module, x = nets()[name]
    y = torch.arange(len(x)) % 3
    return module, x, y, {kind: kernel_oracle(module, x, x, kind, y, y) for kind in KINDS}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["factored", "explicit"])
@pytest.mark.parametrize("name", NETS)
def test_every_kind_equals_the_jacobian_oracle(name, method, dtype):
    """Kernel = reduction of J(x1) J(x2)' with the jacrev Jacobian, for every kind, method and architecture."""
    module, x, y, kernels = wanted(name)
    for kind, want in kernels.items():
        got = empirical_ntk(module, x, x[1:4], kind=kind, labels=(y, y[1:4]), method=method, dtype=dtype)
        assert got.shape == want[:, 1:4].shape
        assert got.dtype == dtype
        assert relative_error(got, want[:, 1:4]) < TOLERANCE[dtype], kind
        square = empirical_ntk(module, x, kind=kind, labels=y, method=method, dtype=dtype)
        assert relative_error(square, want) < TOLERANCE[dtype], kind


def k1():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1, -1], [0.5, 2]]))
        net[2].weight.copy_(torch.tensor([[1, 2], [-1, 1]]))
    return net, torch.tensor([[1, 0.5], [0.2, 1]], dtype=torch.float64)


@pytest.mark.parametrize("method", ["factored", "explicit"])
def test_worked_example_k1(method):
    """A two-layer net computed by hand: all three normalisations of one kernel."""
    net, x = k1()
    close, f64 = {"rtol": 0, "atol": 1e-12}, {"dtype": torch.float64}
    pseudo = empirical_ntk(net, x, method=method)
    torch.testing.assert_close(pseudo, torch.tensor([[8.125, 6.30], [6.30, 9.09]], **f64), **close)
    trace = empirical_ntk(net, x, kind="trace", method=method)
    torch.testing.assert_close(trace, torch.tensor([[6.875, 4.90], [4.90, 7.01]], **f64), **close)
    full = empirical_ntk(net, x, kind="full", method=method)
    torch.testing.assert_close(full[0, 0], torch.tensor([[8.75, 1.25], [1.25, 5.0]], **f64), **close)
    torch.testing.assert_close(full[0, 1], torch.tensor([[5.95, 1.40], [1.40, 3.85]], **f64), **close)
    torch.testing.assert_close(full[1, 1], torch.tensor([[8.57, 2.08], [2.08, 5.45]], **f64), **close)


class Given(nn.Module):
    """Logits linear in four parameters, with Jacobian J1 or J2 as the sample says."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        jacobians = [[[1, 0, 2, 0], [0, 1, 0, 1], [1, 1, 0, 0]], [[1, 0, 1, 1], [0, 2, 0, 0], [0, 1, 1, 0]]]
        self.register_buffer("jacobians", torch.tensor(jacobians).double())

    def forward(self, which):
        return torch.einsum("ni,ikp,p->nk", which, self.jacobians, self.theta)


def test_worked_example_l1():
    """lpNTK of two samples with given Jacobians; signs may replace the labels' for its unsigned variants."""
    net, which = Given(), torch.eye(2).double()
    one, two = which[:1], which[1:]

    def lpntk(a, b, ya, yb):
        return float(empirical_ntk(net, a, b, kind="labelled", labels=([ya], [yb])))

    full = torch.tensor([[3, 0, 2], [1, 2, 1], [1, 2, 1]]).double()
    torch.testing.assert_close(empirical_ntk(net, one, two, kind="full")[0, 0], full)
    assert float(empirical_ntk(net, one, two)) == pytest.approx(13 / 3)
    assert lpntk(one, two, 0, 0) == pytest.approx(5 / 3)
    assert lpntk(one, two, 0, 1) == pytest.approx(-5 / 3)
    assert lpntk(one, one, 0, 0) == pytest.approx(3)
    assert lpntk(two, two, 0, 0) == pytest.approx(11 / 3)
    assert lpntk(two, two, 1, 1) == pytest.approx(7 / 3)
    signs = tuple(torch.nn.functional.one_hot(torch.tensor([c]), 3) - 1 / 3 for c in (0, 1))
    assert float(empirical_ntk(net, one, two, kind="labelled", signs=signs)) == pytest.approx(-0.518519, abs=1e-6)
    scaled = tuple(3 * s for s in signs)
    assert float(empirical_ntk(net, one, two, kind="labelled", signs=scaled)) == pytest.approx(-4.666667, abs=1e-6)


def test_routes_are_told():
    """Info names for each parameter the route that ran, and factors serve every layer they are made for."""
    for name, (module, x) in nets().items():
        _, info = empirical_ntk(module, x, return_info=True)
        assert set(info["routes"].values()) == {"factored"}, name
        assert set(info["routes"]) == {path for path, _ in module.named_parameters()}
        assert info["verified"]


@functools.cache
def in_one_piece(name, kind):
    module, x, *_ = wanted(name)
    return empirical_ntk(module, x, kind=kind, dtype=torch.float64)


@pytest.mark.parametrize("budget", [1, 5_000, 50_000])
@pytest.mark.parametrize("name", ["mlp", "lenet", "transformer", "embedding"])
def test_chunks_change_nothing(name, budget):
    """The memory budget sets the chunks, and these change the kernel by rounding only."""
    module, x, *_ = wanted(name)
    for kind in ("pseudo", "full"):
        whole = in_one_piece(name, kind)
        got = empirical_ntk(module, x, kind=kind, dtype=torch.float64, memory_budget=budget)
        torch.testing.assert_close(got, whole, rtol=1e-12, atol=1e-12)
        got = empirical_ntk(module, x, x[:3], kind=kind, dtype=torch.float64, memory_budget=budget)
        torch.testing.assert_close(got, whole[:, :3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["pseudo", "trace", "labelled", "mse"])
def test_gradients_that_fit_are_held(kind):
    """Where not all samples fit at once but their gradients do, each is read once an output; the kernel stays."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 2, 5), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
    module, x, y = nn.Sequential(*layers), torch.randn(24, 1, 24, 24), torch.arange(24) % 3
    seen = []
    module[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    given = {"kind": kind, "dtype": torch.float64, "memory_budget": 2**19}
    read = {}
    for n in (12, 24):
        seen.clear()
        got, info = empirical_ntk(module, x[:n], labels=y[:n], return_info=True, **given)
        assert info["n_chunk"] < n
        read[n] = sum(seen)
    passes = {"trace": 3}.get(kind, 1)
    assert read[24] - read[12] == 12 * passes
    want = kernel_oracle(module, x, x, kind, y, y)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert torch.equal(got, got.T)
    got = empirical_ntk(module, x[:20], x[20:], labels=(y[:20], y[20:]), **given)
    torch.testing.assert_close(got, want[:20, 20:], rtol=1e-10, atol=1e-10)


def test_budget_is_read():
    """A small budget takes one sample at a time, a large one all."""
    module, x = nets()["lenet"]
    small, large = (empirical_ntk(module, x, memory_budget=b, return_info=True)[1]["n_chunk"] for b in (1, 2**30))
    assert small == 1
    assert large >= len(x)


@pytest.mark.parametrize("name", NETS)
def test_symmetric_positive_semi_definite_and_permuted_with_its_samples(name):
    """Exactly symmetric, no eigenvalue below rounding, rows and columns follow the samples."""
    module, x = nets()[name]
    kernel = empirical_ntk(module, x, dtype=torch.float64)
    assert torch.equal(kernel, kernel.T)
    values = torch.linalg.eigvalsh(kernel)
    assert float(values.min()) > -1e-10 * float(values.max())
    order = torch.randperm(len(x))
    permuted = empirical_ntk(module, x[order], dtype=torch.float64)
    torch.testing.assert_close(permuted, kernel[order][:, order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "lenet", "embedding", "transformer"])
def test_sketch_is_unbiased(name):
    """The mean over seeds of the sketched kernel is the exact kernel, within four standard errors."""
    module, x = nets()[name]
    for kind, n_draws in (("pseudo", 60), ("full", 20)):  # each of the second is K times the work
        exact = empirical_ntk(module, x, kind=kind, dtype=torch.float64)
        draws = torch.stack(
            [
                empirical_ntk(module, x, kind=kind, method="sketch", sketch_dim=4, random_state=s, dtype=torch.float64)
                for s in range(n_draws)
            ]
        )
        spread = draws.std(0) / len(draws) ** 0.5
        # Entries are many, so the largest deviation is allowed five standard errors.
        assert ((draws.mean(0) - exact).abs() <= 5 * spread + 1e-9).all()
        assert draws.std(0).max() > 0


@pytest.mark.parametrize("name", ["mlp_wide", "conv"])
def test_sketch_error_falls_as_one_over_the_root_of_the_dimension(name):
    """Sixteen times the dimension, a quarter of the error."""
    if name == "mlp_wide":
        module, x = nn.Sequential(nn.Linear(40, 80), nn.Tanh(), nn.Linear(80, 3)), torch.randn(6, 40)
    else:
        module = nn.Sequential(nn.Conv2d(3, 24, 3), nn.Tanh(), nn.Conv2d(24, 24, 3), nn.Flatten(), nn.Linear(384, 3))
        x = torch.randn(6, 3, 8, 8)
    exact = empirical_ntk(module, x)
    errors = []
    for dim in (4, 64):
        runs = [empirical_ntk(module, x, method="sketch", sketch_dim=dim, random_state=s) for s in range(12)]
        errors.append(torch.stack([(r - exact).norm() / exact.norm() for r in runs]).square().mean().sqrt())
    assert 2.5 < float(errors[0] / errors[1]) < 6.5


def test_sketch_is_seeded():
    """One seed, one sketch; another seed, another; chunks do not matter."""
    module, x = nets()["lenet"]
    first, second, other = (empirical_ntk(module, x, method="sketch", sketch_dim=8, random_state=s) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)
    small = empirical_ntk(module, x, method="sketch", sketch_dim=8, random_state=0, memory_budget=1)
    torch.testing.assert_close(small, first, rtol=1e-4, atol=1e-5)


def test_large_sketch_is_exact():
    """A sketch no smaller than every gradient keeps them as they are."""
    module, x = nets()["mlp"]
    got = empirical_ntk(module, x, method="sketch", sketch_dim=10_000)
    torch.testing.assert_close(got, empirical_ntk(module, x))


@settings(deadline=None, max_examples=25)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    n=st.integers(1, 5),
    m=st.integers(1, 5),
    kind=st.sampled_from(["pseudo", "trace", "full"]),
    budget=st.sampled_from([1, 3000, 2**30]),
    seed=st.integers(0, 1000),
)
def test_any_mlp_any_block(widths, n, m, kind, budget, seed):
    """Whatever the widths, the block and the budget, the kernel is the oracle's."""
    torch.manual_seed(seed)
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
    module, x = nn.Sequential(*layers[:-1]), torch.randn(n + m, widths[0])
    got = empirical_ntk(module, x[:n], x[n:], kind=kind, dtype=torch.float64, memory_budget=budget)
    torch.testing.assert_close(got, kernel_oracle(module, x[:n], x[n:], kind), rtol=1e-10, atol=1e-10)


def test_threads_do_not_matter():
    """One thread and two give one kernel."""
    module, x = nets()["lenet"]
    before = torch.get_num_threads()
    kernels = []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            kernels.append(empirical_ntk(module, x, dtype=torch.float64))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(kernels[0], kernels[1], rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS:UserWarning")
@pytest.mark.parametrize("method", ["factored", "explicit", "sketch"])
@pytest.mark.parametrize("name", NETS)
def test_devices_agree(name, method):
    """The GPU's kernel is the CPU's."""
    module, x = nets()[name]
    want = empirical_ntk(module, x, method=method, dtype=torch.float64, random_state=0)
    got = empirical_ntk(module.cuda(), x.cuda(), method=method, dtype=torch.float64, random_state=0)
    assert got.is_cuda
    # torch's own norm of a weight is not the CPU's to more than eight digits.
    exact = 1e-7 if name == "weight_norm" else 1e-9
    torch.testing.assert_close(got.cpu(), want, rtol=exact, atol=exact)


def test_oracle_jacobian_of_a_linear_net_is_its_input():
    """The oracle itself: logits w.x have gradient x."""
    x = torch.randn(3, 4)
    torch.testing.assert_close(jacobian(nn.Linear(4, 1, bias=False), x)[:, 0], x.double())
