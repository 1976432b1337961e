"""What a GPU computes is what the CPU computes, for every strategy; the contract itself runs there as well.

    MODAL_NTK_TEST_DEVICE=cuda pytest tests/strategies/test_contract.py tests/nets tests/test_gpu.py
"""

import numpy as np
import pytest
import torch
import zoo
from sklearn.base import clone
from torch import nn

import modal_ntk
from modal_ntk.kernels import empirical_ntk
from modal_ntk.selection import k_center_greedy, look_ahead, max_herding
from modal_ntk.testing.situations import ConvNet, DropoutMLP

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    # What torch says of itself where it first meets a sparse matrix, or a product without a context, on the GPU.
    pytest.mark.filterwarnings("ignore:Sparse invariant checks|Attempting to run cuBLAS:UserWarning"),
]

N, N_LABELED, BATCH = 400, 30, 12
# Dropout's masks come from the device's own generator.
OF_THE_DEVICE = {"bald"}


def on_both(module, X, y, **options):
    """A net fitted on the CPU, and one on the GPU that holds its weights."""
    torch.manual_seed(0)
    here = zoo.net(module, device="cpu", max_epochs=10, **options).fit(X[:N_LABELED], y[:N_LABELED])
    there = clone(here).set_params(device="cuda").initialize()
    there.module_.load_state_dict(here.module_.state_dict())
    return here, there


@pytest.mark.parametrize("kind", ["rows", "images"])
@pytest.mark.parametrize("name", [found.name for found in modal_ntk.list_strategies()])
def test_picks_do_not_depend_on_the_device(name, kind):
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
    for net in on_both(module, X, y):
        strategy = modal_ntk.get_strategy(name)
        if "random_state" in strategy.get_params():
            strategy.set_params(random_state=0)
        found.append(strategy.select(net, X[N_LABELED:], BATCH, **known))
    here, there = found
    assert (there.indices == here.indices).sum() >= BATCH - 1
    np.testing.assert_allclose(there.scores, here.scores, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["bald", "waal"])
def test_what_draws_on_the_device_is_right_there(name):
    """Its picks are as many as asked for, its scores finite, and its net is left where it was."""
    X, y = zoo.blobs(n=N)
    if name == "waal":
        net = modal_ntk.nets.WAALClassifier(zoo.MLP, module__n_classes=8, classes=range(3), device="cuda", verbose=0)
        net.fit(X[:N_LABELED], y[:N_LABELED], X_unlabeled=X[N_LABELED:])
    else:
        net = on_both(DropoutMLP, X, y)[1]
    before = zoo.state_of(net.module_)
    selection = modal_ntk.get_strategy(name, random_state=0).select(net, X[N_LABELED:], BATCH)
    zoo.assert_same_state(zoo.state_of(net.module_), before)
    assert len(set(selection.indices.tolist())) == BATCH
    assert np.isfinite(selection.scores).all()
    assert all(parameter.is_cuda for parameter in net.module_.parameters())


@pytest.mark.parametrize("kind", ["pseudo", "trace", "full"])
def test_kernels_agree(kind):
    """A kernel of double precision is the CPU's to ten digits, whatever its kind; so are blocks between two sets."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(6), nn.Tanh(), nn.Linear(6, 3))
    x = torch.randn(20, 1, 5, 5, dtype=torch.float64)
    module.double()(x)
    want = empirical_ntk(module, x, x[:7], kind=kind, dtype=torch.float64)
    got = empirical_ntk(module.cuda(), x.cuda(), x[:7].cuda(), kind=kind, dtype=torch.float64)
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{}, {"objective": "squared_error", "variance_weight": 2.0}, {"objective": "variance"}, {"tie_break": "variance"}],
)
def test_look_ahead_agrees(options):
    """The look-ahead over tensors on the GPU chooses what compiled loops choose on the CPU."""
    torch.manual_seed(0)
    x = torch.randn(150, 5, dtype=torch.float64)
    kernel = (x @ x.T / 5).exp()
    picks = [
        look_ahead(kernel.to(where), np.arange(150) % 3, np.arange(20), 10, random_state=0, **options)
        for where in ("cpu", "cuda")
    ]
    np.testing.assert_array_equal(picks[1].indices, picks[0].indices)
    np.testing.assert_allclose(picks[1].scores, picks[0].scores, rtol=1e-8)


def test_geometry_agrees():
    """Farthest points and herding choose the same rows on both."""
    x = torch.from_numpy(zoo.blobs(n=300)[0])
    for choose in (lambda some: k_center_greedy(some, 10, first="first"), lambda some: max_herding(some, 10)):
        np.testing.assert_array_equal(choose(x.cuda()).indices, choose(x).indices)
