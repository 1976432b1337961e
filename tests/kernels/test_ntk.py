"""The empirical NTK against its definition."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_kernels import NETS, Wary, jacobian, kernel_oracle, nets
from torch import nn
from zoo import assert_same_state, state_of

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.kernels import empirical_ntk

KINDS = ("pseudo", "trace", "full", "labelled", "loss", "mse")
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


def classes(module, x):
    return torch.arange(len(x)) % 3


@pytest.fixture
def untouched_generator():
    """The global torch generator is the same after the test's body."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


def relative_error(got, want):
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["factored", "explicit"])
@pytest.mark.parametrize("name", NETS)
def test_every_kind_equals_the_jacobian_oracle(name, method, dtype):
    """Kernel = reduction of J(x1) J(x2)' with the jacrev Jacobian, for every kind, method and architecture."""
    module, x = nets()[name]
    y = classes(module, x)
    for kind in KINDS:
        got = empirical_ntk(module, x, x[1:4], kind=kind, labels=(y, y[1:4]), method=method, dtype=dtype)
        want = kernel_oracle(module, x, x[1:4], kind, y, y[1:4])
        assert got.shape == want.shape
        assert got.dtype == dtype
        assert relative_error(got, want) < TOLERANCE[dtype], kind
        square = empirical_ntk(module, x, kind=kind, labels=y, method=method, dtype=dtype)
        assert relative_error(square, kernel_oracle(module, x, x, kind, y, y)) < TOLERANCE[dtype], kind


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


def test_positions_first_with_as_many_positions_as_samples():
    """A layer whose first axis is not the samples' is not mistaken for one, whatever the sizes."""
    module, _ = nets()["sequence_first"]
    for n in (1, 2, 4, 8):
        x = torch.randn(n, n, 5)
        got = empirical_ntk(module, x)
        assert relative_error(got, kernel_oracle(module, x, x, "pseudo")) < 1e-4


@pytest.mark.parametrize("budget", [1, 5_000, 50_000])
@pytest.mark.parametrize("name", ["mlp", "lenet", "transformer", "embedding"])
def test_chunks_change_nothing(name, budget):
    """The memory budget sets the chunks, and these change the kernel by rounding only."""
    module, x = nets()[name]
    for kind in ("pseudo", "full"):
        whole = empirical_ntk(module, x, kind=kind, dtype=torch.float64)
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


@pytest.mark.parametrize("method", ["factored", "explicit", "sketch"])
@pytest.mark.parametrize("name", ["conv_bn", "transformer"])
def test_leaves_no_trace(name, method, request):
    """Parameters, buffers, modes, gradients, hooks, inputs and global generators are as before."""
    module, x = nets()[name]
    module.train()
    next(module.parameters()).grad = torch.ones_like(next(module.parameters()))
    module.register_forward_hook(lambda *_: None)
    before, samples = state_of(module), x.clone()
    request.getfixturevalue("untouched_generator")
    empirical_ntk(module, x, method=method)
    assert_same_state(before, state_of(module))
    assert torch.equal(x, samples)
    assert not any(hasattr(p, "grad_batch") for p in module.parameters())


def test_input_changed_in_place_and_renormed_tables_are_copies():
    """A module that writes to its input, or to a table on reading it, writes to copies."""

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4, max_norm=0.5), nn.Linear(4, 3)

        def forward(self, x):
            x += 1
            return self.head(self.table(x - 1).mean(1))

    module, x = Writes(), torch.randint(0, 8, (4, 3))
    before, samples = module.table.weight.detach().clone(), x.clone()
    with pytest.warns(ModalNTKWarning, match=r"table\.weight"):
        kernel = empirical_ntk(module, x)
    assert torch.equal(module.table.weight, before)
    assert torch.equal(x, samples)
    assert kernel.isfinite().all()


class Named(nn.Module):
    """Words and numbers, each an argument of its own."""

    def __init__(self):
        super().__init__()
        self.table, self.mixed, self.head = nn.Embedding(5, 3), nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, words, numbers):
        return self.head(torch.tanh(self.table(words).mean(1) + self.mixed(numbers)))


class Packed(nn.Module):
    """The same net, fed from the columns of one tensor."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(words=x[:, :2].long(), numbers=x[:, 2:])


@pytest.mark.parametrize("method", ["factored", "explicit"])
def test_several_inputs_by_name(method):
    """A dict of tensors goes to the module's arguments by name, and gives the kernel of the same net on one tensor."""
    torch.manual_seed(0)
    module = Named().double()
    words, numbers = torch.randint(5, (6, 2)), torch.randn(6, 4, dtype=torch.float64)
    packed, x = Packed(module), torch.cat([words.double(), numbers], 1)
    y = torch.arange(6) % 3
    named = {"words": words, "numbers": numbers}
    part = {name: value[1:4] for name, value in named.items()}
    for kind in KINDS:
        got = empirical_ntk(module, named, part, kind=kind, labels=(y, y[1:4]), method=method, memory_budget=4000)
        assert relative_error(got, kernel_oracle(packed, x, x[1:4], kind, y, y[1:4])) < 1e-10, kind
    torch.testing.assert_close(named["numbers"], x[:, 2:])


def test_inputs_of_unlike_lengths_are_told():
    """A dict whose tensors have not one row per sample each is refused with the lengths."""
    with pytest.raises(InvalidInputError, match=r"'words': 3, 'numbers': 2"):
        empirical_ntk(Named(), {"words": torch.zeros(3, 2).long(), "numbers": torch.zeros(2, 4)})


def test_frozen_parameters_do_not_count():
    """The kernel is of the parameters that require gradients."""
    module, x = nets()["lenet"]
    module.conv1.requires_grad_(False)
    got = empirical_ntk(module, x, dtype=torch.float64)
    assert relative_error(got, kernel_oracle(module, x, x, "pseudo")) < 1e-10
    module.requires_grad_(False)
    with pytest.raises(InvalidInputError, match="trainable parameters"):
        empirical_ntk(module, x)


def test_unused_parameters_give_nothing():
    """A parameter that the outputs do not depend on is reported as such."""
    module, x = nets()["mlp"]
    module.spare = nn.Linear(2, 2)
    module.forward = lambda x: module[2](module[1](module[0](x)))
    kernel, info = empirical_ntk(module, x, return_info=True)
    assert info["routes"]["spare.weight"] == "none"
    assert relative_error(kernel, kernel_oracle(nets_like(module), x, x, "pseudo")) < 1e-4


def nets_like(module):
    return nn.Sequential(module[0], module[1], module[2])


def test_one_logit_without_an_axis():
    """Outputs of shape (n,) are one logit."""
    module, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0)), torch.randn(4, 4)
    assert relative_error(empirical_ntk(module, x), kernel_oracle(module, x, x, "pseudo")) < 1e-4


def test_a_net_that_looks_at_values_goes_one_by_one_and_says_so():
    """What torch.func cannot batch is served sample by sample, with a warning that names the parameters."""
    module, x = Wary(), torch.randn(4, 6, 5)
    with pytest.warns(ModalNTKWarning, match=r"torch\.func cannot batch mix"):
        kernel, info = empirical_ntk(module, x, dtype=torch.float64, return_info=True)
    assert relative_error(kernel, kernel_oracle(module, x, x, "pseudo")) < 1e-10
    assert info["routes"] == {"mix": "loop", "head.weight": "factored", "head.bias": "factored"}


def test_batch_statistics_are_refused():
    """Outputs that depend on the batch have no per-sample gradient."""
    module = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3))
    with pytest.raises((InvalidInputError, ValueError)):
        empirical_ntk(module, torch.randn(6, 5))
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten())
    with pytest.raises(InvalidInputError, match="share a batch"):
        empirical_ntk(module, torch.randn(6, 1, 5, 5))


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        return x * weight

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no derivative here")


def test_an_uncovered_parameter_is_named():
    """A parameter that no route can differentiate by is an error that names it."""

    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.odd = nn.Linear(3, 2), nn.Parameter(torch.ones(2))

        def forward(self, x):
            return NoDerivative.apply(self.first(x), self.odd)

    with pytest.raises(InvalidInputError, match="odd"):
        empirical_ntk(Opaque(), torch.randn(3, 3))


def test_bad_arguments_are_told():
    """Every refusal says what was expected."""
    module, x = nets()["mlp"]
    cases = [
        ({"kind": "neural"}, "kind to be one of"),
        ({"method": "fast"}, "method to be one of"),
        ({"kind": "labelled"}, "labels for kind='labelled'"),
        ({"kind": "loss", "labels": [0, 1, 2, 3, 0]}, "labels below 3"),
        ({"kind": "loss", "labels": [0, 1]}, "5 labels, one for each sample"),
        ({"kind": "labelled", "signs": torch.ones(5, 2)}, "signs of shape"),
        ({"memory_budget": 0}, "memory_budget"),
        ({"method": "sketch", "sketch_dim": 0}, "sketch_dim"),
    ]
    for options, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            empirical_ntk(module, x, **options)
    with pytest.raises(InvalidInputError, match="at least one sample"):
        empirical_ntk(module, x[:0])
    with pytest.raises(InvalidInputError, match="outputs of shape"):
        empirical_ntk(nn.Conv2d(1, 2, 3), torch.randn(2, 1, 5, 5))


@pytest.mark.parametrize("name", ["mlp", "lenet", "embedding", "transformer"])
def test_sketch_is_unbiased(name):
    """The mean over seeds of the sketched kernel is the exact kernel, within four standard errors."""
    module, x = nets()[name]
    for kind in ("pseudo", "full"):
        exact = empirical_ntk(module, x, kind=kind, dtype=torch.float64)
        draws = torch.stack(
            [
                empirical_ntk(module, x, kind=kind, method="sketch", sketch_dim=4, random_state=s, dtype=torch.float64)
                for s in range(80)
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


def test_progress_is_shown_only_when_asked_for(capsys):
    """Silent by default; a bar on the error stream with verbose."""
    module, x = nets()["mlp"]
    empirical_ntk(module, x)
    assert capsys.readouterr() == ("", "")
    empirical_ntk(module, x, verbose=1)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "kernel" in shown.err


def test_warning_points_at_the_caller():
    """The fall-back's warning is shown for the line that asked for the kernel."""
    with pytest.warns(ModalNTKWarning) as told:
        empirical_ntk(Wary(), torch.randn(2, 3, 5), dtype=torch.float64)
    assert told[0].filename == __file__


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
