"""What another device computes is what the CPU computes, for every strategy, kernel and choice among rows.

The device is a pretended one, on which a tensor that forgets where it belongs is an error, and a GPU where there is
one. The contract itself runs on either:

    MODAL_NTK_TEST_DEVICE=lazy pytest tests/strategies/test_contract.py
    MODAL_NTK_TEST_DEVICE=cuda pytest tests/strategies/test_contract.py tests/nets tests/test_gpu.py
"""

import numpy as np
import pytest
import torch
import zoo
from pretended import NAME, pretended
from sklearn.base import clone
from torch import nn

import modal_ntk
from modal_ntk.kernels import empirical_ntk
from modal_ntk.selection import k_center_greedy, look_ahead, max_herding
from modal_ntk.testing.situations import ConvNet, DropoutMLP

# What torch says of itself where it first meets a sparse matrix, or a product without a context, on the GPU.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks|Attempting to run cuBLAS:UserWarning")

N, N_LABELED, BATCH = 200, 30, 12
# Dropout's masks come from the device's own generator.
OF_THE_DEVICE = {"bald"}


@pytest.fixture(params=[NAME, "cuda"])
def device(request):
    """The name of a device that is not the CPU."""
    if request.param == NAME:
        with pretended():
            yield NAME
    elif torch.cuda.is_available():
        yield "cuda"
    else:
        pytest.skip("no GPU here")


def on_both(device, module, X, y, **options):
    """A net fitted on the CPU, and one on the device that holds its weights."""
    torch.manual_seed(0)
    here = zoo.net(module, device="cpu", max_epochs=10, **options).fit(X[:N_LABELED], y[:N_LABELED])
    there = clone(here).set_params(device=device).initialize()
    there.module_.load_state_dict(here.module_.state_dict())
    return here, there


@pytest.mark.parametrize("kind", ["rows", "images"])
@pytest.mark.parametrize("name", [found.name for found in modal_ntk.list_strategies()])
def test_picks_do_not_depend_on_the_device(name, kind, device):
    """The same net on the GPU asks for the same samples, but for one tie of single precision, with the same scores."""
    X, y = zoo.blobs(n=N)
    module = DropoutMLP
    if kind == "images":
        X, module = X.reshape(-1, 1, 2, 3), ConvNet
    if name == "waal":
        pytest.skip("asks for a net of its own: see below")
    if name in OF_THE_DEVICE:
        pytest.skip("draws on the device's own generator")
    known = {"X_labeled": X[:N_LABELED], "y_labeled": y[:N_LABELED]}
    found = []
    for net in on_both(device, module, X, y):
        strategy = modal_ntk.get_strategy(name)
        if "random_state" in strategy.get_params():
            strategy.set_params(random_state=0)
        found.append(strategy.select(net, X[N_LABELED:], BATCH, **known))
    here, there = found
    assert (there.indices == here.indices).sum() >= BATCH - 1
    np.testing.assert_allclose(there.scores, here.scores, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [found.name for found in modal_ntk.list_strategies()])
def test_where_samples_lie(name, device):
    """Pool or labelled samples on the device, beside the others on the CPU, are read as arrays of the same are."""
    X, y = zoo.blobs(n=90)
    if name in {"bald", "waal"}:
        pytest.skip("draws on the device's own generator, or asks for a net of its own: see below")
    net = on_both(device, zoo.MLP, X, y)[1]
    labelled, pool = X[:N_LABELED], X[N_LABELED:]
    options = {"random_state": 0} if "random_state" in modal_ntk.get_strategy(name).get_params() else {}

    def picked(labelled, pool):
        strategy = modal_ntk.get_strategy(name, **options)
        return strategy.select(net, pool, 4, X_labeled=labelled, y_labeled=y[:N_LABELED])

    arrays = picked(labelled, pool)
    for known, unknown in ((labelled, lying(pool, device)), (lying(labelled, "cpu"), lying(pool, device)),
                           (lying(labelled, device), pool)):  # fmt: skip
        found = picked(known, unknown)
        np.testing.assert_array_equal(found.indices, arrays.indices)
        np.testing.assert_allclose(found.scores, arrays.scores, rtol=1e-5, atol=1e-7)


def lying(X, where):
    return torch.from_numpy(X).to(where)


@pytest.mark.parametrize("name", ["bald", "waal"])
def test_what_draws_on_the_device_is_right_there(name, device):
    """Its picks are as many as asked for, its scores finite, and its net is left where it was."""
    X, y = zoo.blobs(n=N)
    if name == "waal":
        options = {"module__n_classes": 8, "classes": range(3), "device": device, "max_epochs": 2, "verbose": 0}
        net = modal_ntk.nets.WAALClassifier(zoo.MLP, **options)
        net.fit(X[:N_LABELED], y[:N_LABELED], X_unlabeled=X[N_LABELED:])
    else:
        net = on_both(device, DropoutMLP, X, y)[1]
    before = zoo.state_of(net.module_)
    selection = modal_ntk.get_strategy(name, random_state=0).select(net, X[N_LABELED:], BATCH)
    zoo.assert_same_state(zoo.state_of(net.module_), before)
    assert len(set(selection.indices.tolist())) == BATCH
    assert np.isfinite(selection.scores).all()
    assert all(parameter.device.type == device for parameter in net.module_.parameters())


@pytest.mark.parametrize("kind", ["pseudo", "trace", "full"])
def test_kernels_agree(kind, device):
    """A kernel of double precision is the CPU's to ten digits, whatever its kind; so are blocks between two sets."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(6), nn.Tanh(), nn.Linear(6, 3))
    x = torch.randn(20, 1, 5, 5, dtype=torch.float64)
    module.double()(x)
    want = empirical_ntk(module, x, x[:7], kind=kind, dtype=torch.float64)
    got = empirical_ntk(module.to(device), x.to(device), x[:7].to(device), kind=kind, dtype=torch.float64)
    assert got.device.type == device
    torch.testing.assert_close(got.cpu(), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{}, {"objective": "squared_error", "variance_weight": 2.0}, {"objective": "variance"}, {"tie_break": "variance"}],
)
def test_look_ahead_agrees(options, device):
    """The look-ahead over tensors on the GPU chooses what compiled loops choose on the CPU."""
    torch.manual_seed(0)
    x = torch.randn(150, 5, dtype=torch.float64)
    kernel = (x @ x.T / 5).exp()
    picks = [
        look_ahead(kernel.to(where), np.arange(150) % 3, np.arange(20), 10, random_state=0, **options)
        for where in ("cpu", device)
    ]
    np.testing.assert_array_equal(picks[1].indices, picks[0].indices)
    np.testing.assert_allclose(picks[1].scores, picks[0].scores, rtol=1e-8)


def test_geometry_agrees(device):
    """Farthest points and herding choose the same rows on both."""
    x = torch.from_numpy(zoo.blobs(n=300)[0])
    for choose in (lambda some: k_center_greedy(some, 10, first="first"), lambda some: max_herding(some, 10)):
        np.testing.assert_array_equal(choose(x.to(device)).indices, choose(x).indices)


FORGETFUL = {
    "sum": lambda there: there + torch.ones(4),
    "product": lambda there: there @ torch.ones(4),
    "rows of the CPU's": lambda there: torch.ones(4)[there[0].long()],
    "rows by index_select": lambda there: there.index_select(0, torch.zeros(2, dtype=torch.int64)),
    "joined": lambda there: torch.cat([there, torch.ones(1, 4)]),
    "into the CPU's": lambda there: torch.ones(3, 4).add_(there),
    "into one of the CPU's": lambda there: torch.tensor(1.0).add_(there[0, 0]),
    "layer": lambda there: nn.Linear(4, 2)(there),
    "generator": lambda there: torch.rand(3, device=there.device, generator=torch.Generator()),
    "array": lambda there: there.numpy(),
    "array of NumPy": lambda there: np.asarray(there),
}


@pytest.mark.parametrize("what", FORGETFUL)
def test_a_tensor_that_forgets_its_device_is_an_error(what, device):
    """On the pretended device as on a GPU: these tests can fail."""
    with pytest.raises((RuntimeError, TypeError), match=r"same device|device type|numpy\(\)|to numpy"):
        FORGETFUL[what](torch.ones(3, 4).to(device))


def test_what_a_gpu_takes_is_taken(device):
    """Copies both ways, single numbers and row numbers of the CPU's."""
    there = torch.arange(12.0, device=device).reshape(3, 4)
    here = torch.arange(12.0).reshape(3, 4)
    rows = torch.tensor([2, 0])
    for do in (lambda x: x[rows], lambda x: x * torch.tensor(2.0), lambda x: x.clone().copy_(torch.ones(4))):
        assert do(there).device.type == device
        torch.testing.assert_close(do(there).cpu(), do(here))
    torch.testing.assert_close(torch.zeros(3, 4).copy_(there), here)
    assert there.tolist() == here.tolist()
