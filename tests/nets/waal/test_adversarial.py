"""The adversarial terms of WAAL and the distances on the line, against their definitions."""

import numpy as np
import oracles_waal as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modal_ntk.errors import InvalidInputError
from modal_ntk.nets import h_divergence_1d, wasserstein_1d
from modal_ntk.nets.waal.adversarial import (
    divergence_objective,
    gradient_penalty,
    separation,
    transport_objective,
    waal_coefficients,
)

SIZES = st.integers(1, 500)
SAMPLES = st.lists(st.floats(-5, 5).map(lambda v: round(v, 1)), min_size=1, max_size=8)


def test_coefficients_of_the_papers_example():
    """1,000 labels, 9,000 unlabelled samples and a query of 1,000 give C0 = .049383 by equation 8 and mu' = .9 mu."""
    weights = waal_coefficients(1000, 9000, 1000, mu=1e-2, equation=8)
    assert weights.labeled == pytest.approx(0.049383, abs=5e-7)
    assert weights.adversarial == pytest.approx(0.9e-2, rel=1e-12)


def test_coefficients_of_the_authors_code():
    """The authors' code weighs the labelled batch L/U and the term mu."""
    weights = waal_coefficients(1000, 9000, 1000, mu=2e-3, official_code=True)
    assert (weights.adversarial, weights.labeled) == (2e-3, pytest.approx(1 / 9))


@settings(deadline=None)
@given(n_labeled=SIZES, n_unlabeled=SIZES, n_instances=SIZES, equation=st.sampled_from([7, 8]))
def test_coefficients_are_those_of_the_equation(n_labeled, n_unlabeled, n_instances, equation):
    """C0 and mu' are the sums of equation 7 as means; equation 8 divides by U/L once more; never negative."""
    n_instances = min(n_instances, n_unlabeled)
    adversarial, labeled = oracle.coefficients(n_labeled, n_unlabeled, n_instances, 0.3, equation)
    weights = waal_coefficients(n_labeled, n_unlabeled, n_instances, mu=0.3, equation=equation)
    assert weights.adversarial == pytest.approx(adversarial, rel=1e-9)
    assert weights.labeled == pytest.approx(labeled, rel=1e-9, abs=1e-12)
    assert weights.labeled >= -1e-12
    small = waal_coefficients(n_labeled, n_unlabeled, mu=0.3, equation=equation).labeled
    assert small == pytest.approx(1.0 if equation == 7 else n_labeled / n_unlabeled)


@settings(deadline=None)
@given(u=SAMPLES, known=SAMPLES)
def test_separation_is_the_share_of_pairs_in_order(u, known):
    """The area under the ROC curve, pair by pair; critics that swap the batches have one less it."""
    values = [torch.tensor(part, dtype=torch.float64) for part in (u, known)]
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in u for b in known]
    assert float(separation(*values)) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert float(separation(*values[::-1])) == pytest.approx(1 - float(separation(*values)), abs=1e-12)


def test_objectives_follow_their_formulas():
    """Transport is a difference of means; divergence is a log-likelihood, finite also at 0 and 1."""
    g_u, g_l = torch.tensor([0.2, 0.9], dtype=torch.float64), torch.tensor([0.4, 0.6, 0.1], dtype=torch.float64)
    assert float(transport_objective(g_u, g_l, 0.3)) == pytest.approx(0.55 - 0.3 * 1.1 / 3)
    expected = np.log([0.2, 0.9]).mean() + np.log([0.6, 0.4, 0.9]).mean()
    assert float(divergence_objective(g_u, g_l)) == pytest.approx(expected)
    assert torch.isfinite(divergence_objective(torch.zeros(1), torch.ones(1)))


@pytest.mark.parametrize("ends", [False, True])
def test_penalty_is_the_squared_distance_of_the_slope_from_one(ends):
    """It is the mean over the points, which lie between paired rows, and over both batches where asked."""
    torch.manual_seed(0)
    z_u, z_l = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    linear = nn.Linear(3, 1, dtype=torch.float64)
    seen = []

    def critic(z):
        seen.append(z.detach())
        return torch.sigmoid(linear(z))[:, 0]

    got = float(gradient_penalty(critic, z_u, z_l, ends=ends).detach())
    points = seen[0]
    assert len(points) == (15 if ends else 5)
    share = (points[:5] - z_l) / (z_u - z_l)
    assert torch.allclose(share, share[:, :1].expand_as(share))
    assert ((share > 0) & (share < 1)).all()
    assert not ends or torch.equal(points[5:], torch.cat([z_u, z_l]))
    weight, bias = linear.weight[0].tolist(), linear.bias.item()
    assert got == pytest.approx(oracle.penalty(weight, bias, points.tolist()), rel=1e-12)


def test_penalty_reaches_the_critic_and_not_the_features():
    """Its gradient flows into the critic's parameters only: the features are constants to it."""
    z = torch.randn(4, 3, requires_grad=True)
    critic = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    gradient_penalty(critic, z, z + 1).backward()
    assert z.grad is None
    assert critic[0].weight.grad.abs().sum() > 0


def _trained_critic(sign):
    """A critic after 400 steps on two Gaussians 2 apart, the penalty added (+1) or subtracted (-1)."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 50), nn.ReLU(), nn.Linear(50, 1), nn.Sigmoid())
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    g = lambda z: critic(z)[:, 0]  # noqa: E731
    for _ in range(400):
        z_u, z_l = torch.randn(64, 2) + 1, torch.randn(64, 2) - 1
        loss = -transport_objective(g(z_u), g(z_l)) + sign * 2 * gradient_penalty(g, z_u, z_l)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z_u, z_l = torch.randn(2000, 2) + 1, torch.randn(2000, 2) - 1
    transport = float(transport_objective(g(z_u), g(z_l)).detach())
    return transport, float(gradient_penalty(g, z_u, z_l).detach())


def test_only_the_plus_sign_separates_two_shifted_gaussians():
    """Added, the penalty falls and the transport estimate grows; subtracted, as in the authors' code, neither does."""
    transport, penalty = _trained_critic(+1)
    flat_transport, flat_penalty = _trained_critic(-1)
    assert transport > 0.4
    assert penalty < 0.7
    assert abs(flat_transport) < 0.1
    assert flat_penalty > 0.9


def _example(a=10, b=2, x0=15.0, step=0.01):
    """Dense samples of the paper's D1, D2 and D3 with equally many points for each unit of length."""

    def filled(low, high):
        return np.arange(low + step / 2, high, step)

    d1 = np.concatenate([filled(-2 * a, -a), filled(a, 2 * a)])
    d2 = np.concatenate([filled(-x0 - b / 2, -x0 + b / 2), filled(x0 - b / 2, x0 + b / 2)])
    return d1, d2, filled(x0 - b, x0 + b)


def test_transport_orders_the_diverse_query_first_and_h_divergence_does_not():
    """The paper's figure 2: every D2 is nearer to D1 than any D3 in W1, while H-divergence is the same for all."""
    a, b = 10, 2
    d2_far = max(wasserstein_1d(*_example(a, b, x0)[:2]) for x0 in np.linspace(a + b / 2, 2 * a - b / 2, 9))
    d3_near = min(wasserstein_1d(*_example(a, b, x0)[::2]) for x0 in np.linspace(a + b, 2 * a - b, 9))
    assert d2_far < d3_near
    for x0 in (13.0, 15.0, 17.0):
        d1, d2, d3 = _example(a, b, x0)
        expected = 1 - 2 * b / (a + b)  # the constant classifier errs on the rarer set alone
        assert h_divergence_1d(d1, d2) == pytest.approx(expected, abs=1e-9)
        assert h_divergence_1d(d1, d3) == pytest.approx(expected, abs=1e-9)
        # With the sets weighed equally a threshold does see the difference: the claim is about the plain error.
        assert h_divergence_1d(d1, d2, balanced=True) < h_divergence_1d(d1, d3, balanced=True)


@settings(deadline=None)
@given(x=SAMPLES, y=SAMPLES, balanced=st.booleans())
def test_h_divergence_is_that_of_the_best_threshold(x, y, balanced):
    """It equals 1 - 2 e with e found by trying every threshold; it is symmetric and in [0, 1]."""
    got = h_divergence_1d(x, y, balanced=balanced)
    assert got == pytest.approx(1 - 2 * oracle.threshold_error(x, y, balanced), abs=1e-9)
    assert got == pytest.approx(h_divergence_1d(y, x, balanced=balanced), abs=1e-9)
    assert -1e-12 <= got <= 1 + 1e-12


@settings(deadline=None)
@given(x=SAMPLES, shift=st.floats(-3, 3))
def test_moving_a_sample_costs_its_way(x, shift):
    """W1 between a sample and the same one shifted is the length of the shift."""
    assert wasserstein_1d(x, [v + shift for v in x]) == pytest.approx(abs(shift), abs=1e-9)


@pytest.mark.parametrize("bad", [[], [[1.0]], [np.nan]])
def test_distances_refuse_what_is_no_sample(bad):
    """An empty, two-dimensional or infinite argument is named with what was expected."""
    for distance in (wasserstein_1d, h_divergence_1d):
        with pytest.raises(InvalidInputError, match="Expected y to be a sample"):
            distance([0.0], bad)
