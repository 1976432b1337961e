"""The walk to the decision boundary: closed form on affine nets, a slow loop on others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modal_ntk.features import walk_to_boundary


def walk(module, x, **options):
    return walk_to_boundary(lambda parts, rows: module(parts[0]), [x], **options)


def slow_walk(module, x, max_steps=50):
    """One sample, one class, one step after the other, in float64 NumPy but for the gradients."""
    x, moved = x.detach().clone(), np.zeros(x.shape)
    own = int(module(x[None]).argmax())
    for _ in range(max_steps):
        point = (x + torch.from_numpy(moved)).requires_grad_()
        f = module(point[None])[0]
        if f.argmax() != own:
            break
        best = None
        for rival in range(len(f)):
            if rival == own:
                continue
            w = torch.autograd.grad(f[rival] - f[own], point, retain_graph=True)[0].numpy()
            gap = abs((f[rival] - f[own]).item())
            if np.linalg.norm(w) > 0 and (best is None or gap / np.linalg.norm(w) < best[0]):
                best = (gap / np.linalg.norm(w), gap * w / np.linalg.norm(w) ** 2)
        if best is None:
            break
        moved += best[1]
    return moved


@given(seed=st.integers(0, 2**16), n_classes=st.integers(2, 7), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_on_an_affine_net_it_is_the_closed_form(seed, n_classes, dtype):
    """One step to the nearest of the C - 1 hyperplanes: squared length min (f_l - f_k)^2 / ||w_l - w_k||^2."""
    generator = torch.Generator().manual_seed(seed)
    weight, bias, x = (torch.randn(shape, generator=generator) for shape in ((n_classes, 5), (n_classes,), (9, 5)))
    f = (x.double() @ weight.T.double() + bias.double()).numpy()
    own = f.argmax(1)
    expected = np.empty(9)
    for i, k in enumerate(own):
        others = [c for c in range(n_classes) if c != k]
        w = weight.double().numpy()[others] - weight.double().numpy()[k]
        expected[i] = ((f[i, others] - f[i, k]) ** 2 / (w**2).sum(1)).min()
    found = walk(lambda z: z @ weight.T.to(dtype) + bias.to(dtype), x.to(dtype))
    assert found.arrived.all()
    np.testing.assert_allclose(
        found.squared_lengths.numpy(), expected, rtol=1e-3 if dtype == torch.float32 else 1e-9, atol=1e-7
    )
    np.testing.assert_allclose(
        found.squared_lengths.numpy(), found.steps[0].double().square().sum(1).numpy(), rtol=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_on_a_curved_net_it_is_the_slow_loop(seed):
    """The perturbations of a batch are those of one sample after the other."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    found = walk(module, x)
    for i in range(6):
        np.testing.assert_allclose(found.steps[0][i].numpy(), slow_walk(module, x[i]), atol=1e-7)


def test_an_overshoot_crosses_the_boundary():
    """With an overshoot the perturbed samples are predicted as another class, and are that much farther away."""
    torch.manual_seed(0)
    module, x = nn.Linear(3, 4).double(), torch.randn(8, 3, dtype=torch.float64)
    plain, over = walk(module, x), walk(module, x, overshoot=0.02)
    assert (module(x + over.steps[0]).argmax(1) != module(x).argmax(1)).all()
    torch.testing.assert_close(over.squared_lengths, 1.02**2 * plain.squared_lengths)


def test_rivals_are_the_most_probable_classes():
    """With one rival the walk goes to the runner-up, which is not always the nearest class."""
    weight = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 10.0]], dtype=torch.float64)
    bias = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    x = torch.zeros(1, 2, dtype=torch.float64)

    def module(z):
        return z @ weight.T + bias

    assert walk(module, x).steps[0].tolist() == [[0.0, pytest.approx(0.2)]]
    assert walk(module, x, n_rivals=1).steps[0].tolist() == [[pytest.approx(10.0), 0.0]]


def test_the_number_of_steps_is_bounded():
    """A walk that needs more steps stops, has not arrived, and keeps the length so far."""
    module = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    torch.manual_seed(1)
    x = 3 * torch.randn(20, 2, dtype=torch.float64)
    one, many = walk(module, x, max_steps=1), walk(module, x, max_steps=50)
    assert one.arrived.sum() < many.arrived.sum()
    assert one.squared_lengths.isfinite().all()


@pytest.mark.parametrize(
    "module",
    [lambda z: z * 0 + torch.tensor([1.0, 0.0]), lambda z: torch.tensor([[1.0, 0.0]]).expand(len(z), 2)],
    ids=["zero gradient", "no gradient"],
)
def test_what_cannot_move_is_infinitely_far(module):
    """Where the logits do not depend on the input, the length is infinite and the sample stays."""
    found = walk(module, torch.ones(3, 2))
    assert found.squared_lengths.tolist() == [torch.inf] * 3
    assert not found.arrived.any()
    assert not found.steps[0].any()


def test_a_sample_on_the_boundary_stays():
    """Equal logits are a boundary: length zero, arrived."""
    found = walk(nn.Identity(), torch.tensor([[1.0, 1.0], [3.0, 1.0]]))
    assert found.squared_lengths.tolist() == [0.0, pytest.approx(2.0)]
    assert found.arrived.all()


def test_several_inputs_are_moved_together():
    """Two inputs are as one long one."""
    torch.manual_seed(0)
    module, x = nn.Linear(5, 4).double(), torch.randn(6, 5, dtype=torch.float64)
    parts = walk_to_boundary(lambda p, rows: module(torch.cat(p, 1)), [x[:, :2], x[:, 2:]])
    torch.testing.assert_close(torch.cat(parts.steps, 1), walk(module, x).steps[0])


def test_nothing_of_the_callers_changes():
    """Inputs are the same afterwards, also under a net that changes its input in place."""
    x = torch.randn(4, 3)
    before = x.clone()
    walk(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3)), x)
    assert torch.equal(x, before)
    assert not x.requires_grad
