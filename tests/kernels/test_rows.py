"""Kernels read by rows against the kernel computed at once, and the worked example of the labelled kernel."""

import numpy as np
import pytest
import torch
import zoo
from torch import nn

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.kernels import empirical_ntk, kernel_rows

X, y = zoo.blobs(n=30)


def net_and_samples(name):
    torch.manual_seed(0)
    x = torch.from_numpy(X)
    if name == "embedding":
        return nn.Sequential(nn.Embedding(50, 3), nn.Flatten(), nn.Linear(12, 3)), torch.randint(50, (30, 4))
    if name == "dict":
        return zoo.DictNet(), {"a": x[:, :3], "b": x[:, 3:]}
    module = {"mlp": zoo.MLP, "conv": zoo.ConvNet, "frozen": zoo.FrozenBackbone}[name]()
    return module, x.reshape(30, 1, 2, 3) if name == "conv" else x


class Given(nn.Module):
    """A linear function of its parameters: sample i has the i-th Jacobian of a list."""

    def __init__(self, jacobians, q=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(jacobians.shape[2], dtype=torch.float64))
        self.register_buffer("jacobians", jacobians)
        self.register_buffer("offset", torch.zeros(jacobians.shape[:2]).double() if q is None else q.log())

    def forward(self, x):
        rows = x[:, 0].long()
        return self.jacobians[rows] @ self.weight + self.offset[rows]


J = torch.tensor(
    [[[1, 0, 2, 0], [0, 1, 0, 1], [1, 1, 0, 0]], [[1, 0, 1, 1], [0, 2, 0, 0], [0, 1, 1, 0]]], dtype=torch.float64
)


@pytest.mark.parametrize(
    ("labels", "entry", "value"),
    [((0, 0), (0, 1), 5 / 3), ((0, 1), (0, 1), -5 / 3), ((0, 0), (0, 0), 3.0), ((0, 0), (1, 1), 11 / 3),
     ((0, 1), (1, 1), 7 / 3)],
)  # fmt: skip
def test_the_worked_example_of_the_labelled_kernel(labels, entry, value):
    """Jacobians worked out by hand give the labelled kernel worked out by hand, by rows and at once."""
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    by_rows = kernel_rows(Given(J), x, labels=list(labels)).matrix()
    np.testing.assert_allclose(by_rows[entry], value, rtol=1e-12)
    at_once = empirical_ntk(Given(J), x, kind="labelled", labels=list(labels))
    np.testing.assert_allclose(at_once.numpy(), by_rows, rtol=1e-12)


def test_the_worked_example_of_the_other_signs():
    """With the weights of the forgetting variant, at both of the paper's scales, the entry is the one by hand."""
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    one_hot = torch.eye(3, dtype=torch.float64)[[0, 1]]
    small = kernel_rows(Given(J), x, signs=one_hot - 1 / 3).matrix()
    np.testing.assert_allclose(small[0, 1], -0.518519, atol=1e-6)
    np.testing.assert_allclose(kernel_rows(Given(J), x, signs=3 * one_hot - 1).matrix()[0, 1], -4.666667, atol=1e-6)
    full = empirical_ntk(Given(J), x, kind="full")[0, 1]
    assert full.tolist() == [[3, 0, 2], [1, 2, 1], [1, 2, 1]]
    np.testing.assert_allclose(empirical_ntk(Given(J), x)[0, 1], 13 / 3)


@pytest.mark.parametrize("name", ["mlp", "conv", "frozen", "embedding", "dict"])
@pytest.mark.parametrize("kind", ["labelled", "pseudo", "loss"])
def test_rows_are_those_of_the_kernel(name, kind):
    """Diagonal, single rows, blocks, taken samples and cross blocks are parts of the kernel computed at once."""
    module, x = net_and_samples(name)
    labels = None if kind == "pseudo" else y
    whole = empirical_ntk(module, x, kind=kind, labels=labels, dtype=torch.float64, method="explicit").numpy()
    rows = kernel_rows(module, x, kind=kind, labels=labels, dtype=torch.float64)
    assert len(rows) == 30
    assert rows.info["method"] == "exact"
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(rows.diagonal(), whole.diagonal(), **close)
    np.testing.assert_allclose(rows.row(17), whole[17], **close)
    np.testing.assert_allclose(rows.block(3, 9), whole[3:9], **close)
    np.testing.assert_allclose(rows.block(3, 9, 20), whole[3:9, :20], **close)
    np.testing.assert_allclose(rows.rows_at([4, 1]), whole[[4, 1]], **close)
    np.testing.assert_array_equal(rows.matrix(), rows.matrix().T)
    some = [7, 2, 29]
    np.testing.assert_allclose(rows.take(some).matrix(), whole[np.ix_(some, some)], **close)
    np.testing.assert_allclose(rows.take(some).cross(rows.take([1, 0])), whole[np.ix_(some, [1, 0])], **close)


def test_chunks_do_not_show():
    """A budget that forces one sample at a time gives the rows that one batch gives."""
    module, x = net_and_samples("conv")
    whole = kernel_rows(module, x, labels=y, dtype=torch.float64)
    budget = whole.info["bytes"]
    np.testing.assert_allclose(
        kernel_rows(module, x, labels=y, dtype=torch.float64, memory_budget=budget).matrix(), whole.matrix(), rtol=1e-12
    )


def test_what_does_not_fit_is_sketched_and_said():
    """Beyond the budget "auto" warns and sketches; "exact" refuses; the sketch is right on average and seeded."""
    module, x = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 3)), torch.from_numpy(X)
    exact = kernel_rows(module, x, labels=y).matrix()
    with pytest.warns(ModalNTKWarning, match=r"memory_budget \(1,000 bytes\): .* 32 numbers .*") as told:
        rows = kernel_rows(module, x, labels=y, memory_budget=1000, sketch_dim=32, random_state=0)
    assert rows.info["method"] == "sketch"
    assert str(told[0].message).endswith(f", which take {rows.info['bytes']:,} bytes.")
    again = kernel_rows(module, x, labels=y, method="sketch", sketch_dim=32, random_state=0)
    np.testing.assert_allclose(rows.matrix(), again.matrix(), rtol=1e-4, atol=1e-4)
    mean = np.mean(
        [kernel_rows(module, x, labels=y, method="sketch", sketch_dim=32, random_state=s).matrix() for s in range(60)],
        0,
    )
    assert np.linalg.norm(mean - exact) < 0.1 * np.linalg.norm(exact)
    with pytest.raises(InvalidInputError, match=r"gradients of at most 1000 bytes, got \d+"):
        kernel_rows(module, x, labels=y, method="exact", memory_budget=1000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_nothing_depends_on_the_parameters_the_kernel_is_zero(dtype):
    """Cross-entropy over one class is zero for all parameters: so is the kernel, in the type asked for."""
    torch.manual_seed(0)
    module, x, labels = nn.Linear(6, 1), torch.from_numpy(X), torch.zeros(30, dtype=torch.long)
    rows = kernel_rows(module, x, kind="loss", labels=labels, dtype=dtype)
    for kernel in (rows.matrix(), rows.take([3, 1]).cross(rows), rows.diagonal()):
        assert torch.from_numpy(kernel).dtype == dtype
        assert not kernel.any()
    held = empirical_ntk(module, x, x[:4], kind="loss", labels=(labels, labels[:4]), dtype=dtype, memory_budget=1)
    torch.testing.assert_close(held, torch.zeros(30, 4, dtype=dtype), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "labels for kind='labelled'"),
        ({"labels": y[:5]}, "30 labels, one for each sample, got 5"),
        ({"labels": y, "kind": "full"}, "kind to be one of"),
        ({"labels": y, "method": "fast"}, "method to be one of"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    """A missing label, a wrong number of them and unknown words are errors that say what was expected."""
    with pytest.raises(InvalidInputError, match=message):
        kernel_rows(zoo.MLP(), torch.from_numpy(X), **arguments)


def test_the_module_is_left_alone():
    """Preparing a kernel leaves weights, buffers, modes, gradients and hooks as they were."""
    module, x = net_and_samples("conv")
    before = zoo.state_of(module)
    with zoo.generators_untouched():
        kernel_rows(module, x, labels=y, method="sketch", random_state=0).row(0)
    zoo.assert_same_state(before, zoo.state_of(module))
