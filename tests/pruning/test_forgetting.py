"""Foretold forgetting against the kernel written out, and the worked example."""

import numpy as np
import oracles_lpntk
import pytest
import torch
import zoo
from torch import nn

from modal_ntk.errors import InvalidInputError
from modal_ntk.features import kernel_times
from modal_ntk.kernels import empirical_ntk
from modal_ntk.pruning import ForgettingEvents, predict_forgetting

J = torch.tensor(
    [[[1, 0, 2, 0], [0, 1, 0, 1], [1, 1, 0, 0]], [[1, 0, 1, 1], [0, 2, 0, 0], [0, 1, 1, 0]]], dtype=torch.float64
)
Q = torch.tensor([[0.4, 0.35, 0.25], [0.5, 0.3, 0.2]], dtype=torch.float64)


class Given(nn.Module):
    """A linear function of its parameters with the Jacobians J and the probabilities Q at zero."""

    def __init__(self, q=Q):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.register_buffer("q", q)

    def forward(self, x):
        rows = x[:, 0].long()
        return J[rows] @ self.weight + self.q[rows].log()


FIRST, SECOND = torch.tensor([[0.0]]).double(), torch.tensor([[1.0]]).double()


@pytest.mark.parametrize(
    ("error", "change"),
    [
        ("true", [-0.2496, 0.1456, 0.1040]),
        ("uniform", [-0.224, 0.130667, 0.093333]),
        ("uniform_counts", [-0.672, 0.392, 0.28]),
    ],
)
def test_the_worked_example(error, change):
    """One sample's step of 0.4 moves the probabilities as by hand, at each error term, and the sample is forgotten."""
    theta = empirical_ntk(Given(), FIRST, SECOND, kind="full")[0, 0]
    weights = {"true": [-0.5, 0.7, -0.2], "uniform": [-1 / 3, 2 / 3, -1 / 3], "uniform_counts": [-1, 2, -1]}[error]
    by_hand = 0.4 * (np.diag(Q[0]) - np.outer(Q[0], Q[0])) @ theta.numpy() @ np.array(weights)
    np.testing.assert_allclose(by_hand, change, atol=1e-6)
    moved = kernel_times(Given(), FIRST, SECOND, torch.tensor([weights], dtype=torch.float64))
    np.testing.assert_allclose(moved[0], theta.numpy() @ np.array(weights), rtol=1e-12)
    events = predict_forgetting(Given(), Given(), FIRST, [0], SECOND, [1], lr=0.4, error=error)
    assert events.predicted.tolist() == [True]
    assert events.happened.tolist() == [False]


@pytest.mark.parametrize("module", [zoo.MLP, zoo.ConvNet, zoo.DictNet])
def test_a_product_with_the_kernel_is_that_of_the_blocks(module):
    """Weights pulled back and pushed forward equal the sum over K by K blocks of the kernel, in batches too."""
    X, _ = zoo.blobs(n=20)
    x = torch.from_numpy(X).double()
    x = {"a": x[:, :3], "b": x[:, 3:]} if module is zoo.DictNet else x
    x = x.reshape(20, 1, 2, 3) if module is zoo.ConvNet else x
    net = module().double()
    left, right = ({k: v[r] for k, v in x.items()} if isinstance(x, dict) else x[r] for r in (slice(7), slice(7, 20)))
    weights = torch.randn(13, 3, dtype=torch.float64)
    theta = empirical_ntk(net, left, right, kind="full")
    expected = torch.einsum("ijab,jb->ia", theta, weights)
    before = zoo.state_of(net)
    for batch_size in (512, 4):
        torch.testing.assert_close(kernel_times(net, left, right, weights, batch_size=batch_size), expected)
    zoo.assert_same_state(before, zoo.state_of(net))


def steps(n_steps, lr, seed=0):
    """A small net trained by plain descent, with batches as they came: (before, after, last batch, this batch)."""
    X, y = zoo.blobs(n=200, seed=seed)
    y = np.random.default_rng(seed).permutation(y)  # hard to fit, so that much is forgotten
    x, labels = torch.from_numpy(X), torch.from_numpy(y)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    rng = np.random.default_rng(seed)
    last = None
    for _ in range(n_steps):
        rows = rng.choice(200, 20, replace=False)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        grads = torch.autograd.grad(nn.functional.cross_entropy(net(x[rows]), labels[rows]), list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), grads, strict=True):
                p -= lr * g
        if last is not None:
            old = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
            old.load_state_dict(before)
            yield old, net, (x[last], y[last]), (x[rows], y[rows])
        last = rows


@pytest.mark.parametrize("error", ["true", "uniform", "uniform_counts"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_predictions_are_the_rebuilt_algorithm(error, reduction):
    """What is foretold and what happened equal algorithm 2 run sample by sample on explicit kernels."""
    for before, after, (x, y), (x_step, y_step) in steps(12, 0.5):
        events = predict_forgetting(before, after, x, y, x_step, y_step, lr=0.5, error=error, reduction=reduction)
        theta = empirical_ntk(before, x, x_step, kind="full", dtype=torch.float64).numpy()
        with torch.no_grad():
            q, later, of_step = (
                f(v).double().softmax(1).numpy() for f, v in ((before, x), (after, x), (before, x_step))
            )
        happened, predicted = oracles_lpntk.forgetting(q, later, of_step, theta, y, y_step, 0.5, error, reduction)
        assert events.happened.tolist() == happened
        assert events.predicted.tolist() == predicted


def test_the_true_error_foretells_small_steps():
    """With the net's own error and steps of plain descent, nearly all forgetting is foretold."""
    total = None
    for before, after, (x, y), (x_step, y_step) in steps(60, 0.3):
        events = predict_forgetting(before, after, x, y, x_step, y_step, lr=0.3, error="true")
        total = events if total is None else total + events
    assert total.happened.sum() > 30
    assert total.precision > 0.85
    assert total.recall > 0.85


def test_another_nets_kernel_can_be_taken():
    """kernel_from takes the kernel of another net, and all else from the one before the step."""
    made = list(steps(6, 2.0))
    before, after, (x, y), (x_step, y_step) = made[-1]
    older = made[0][0]
    events = predict_forgetting(before, after, x, y, x_step, y_step, lr=8.0, kernel_from=older)
    theta = empirical_ntk(older, x, x_step, kind="full", dtype=torch.float64).numpy()
    with torch.no_grad():
        q, later, of_step = (f(v).double().softmax(1).numpy() for f, v in ((before, x), (after, x), (before, x_step)))
    happened, predicted = oracles_lpntk.forgetting(q, later, of_step, theta, y, y_step, 8.0, "uniform", "mean")
    assert events.happened.tolist() == happened
    assert events.predicted.tolist() == predicted
    assert predicted != predict_forgetting(before, after, x, y, x_step, y_step, lr=8.0).predicted.tolist()


def test_shares_without_events():
    """Precision is 1 where nothing was predicted, recall 1 where nothing happened, F1 0 where both are 0."""
    none, some = np.zeros(3, bool), np.array([True, False, False])
    assert ForgettingEvents(none, none).f1 == 1
    assert (ForgettingEvents(some, none).precision, ForgettingEvents(some, none).recall) == (1, 0)
    assert ForgettingEvents(some, some[::-1]).f1 == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "lr to be a finite number above zero"),
        ({"lr": 1, "error": "false"}, "error to be one of"),
        ({"lr": 1, "reduction": "max"}, "reduction to be one of"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    """Each wrong argument is an error naming it."""
    with pytest.raises(InvalidInputError, match=message):
        predict_forgetting(Given(), Given(), FIRST, [0], SECOND, [1], **options)


def test_weights_must_fit():
    """Weights are one for each sample and output."""
    with pytest.raises(InvalidInputError, match=r"weights of shape \(1, 3\), got shape \(1, 2\)"):
        kernel_times(Given(), FIRST, SECOND, torch.ones(1, 2))
