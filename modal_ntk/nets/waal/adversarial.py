"""The adversarial terms of WAAL: what features descend and the critic ascends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Critic = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Coefficients:
    """Weights of the adversarial term.

    Parameters
    ----------
    adversarial : float
        mu', the weight beside the cross-entropy.
    labeled : float
        C0, the weight of the labelled batch beside the unlabelled one.
    """

    adversarial: float
    labeled: float


def waal_coefficients(
    n_labeled: int,
    n_unlabeled: int,
    n_instances: int = 0,
    *,
    mu: float = 1e-2,
    equation: Literal[7, 8] = 7,
    official_code: bool = False,
) -> Coefficients:
    """Return the weights that follow from the sizes of the sets.

    Parameters
    ----------
    n_labeled, n_unlabeled : int
        L and U, both at least 1.
    n_instances : int, default=0
        B, the size of the next query; more than U counts as U, since no more can be taken. 0 is the limit
        of small queries.
    mu : float, default=1e-2
        The trade-off.
    equation : {7, 8}, default=7
        Whose weight the labelled batch has: what equation 7 comes to where sums are means over batches, or what
        equation 8 makes of it, which is U/L times smaller.
    official_code : bool, default=False
        The weights of the authors' code instead: mu' = mu and C0 = L/U.

    Returns
    -------
    Coefficients
        mu' and C0.

    Notes
    -----
    Shui et al., "Deep Active Learning: Unified and Principled Method for Query and Training": with gamma = U/L
    and alpha = B/L, mu' = mu gamma / (1 + gamma), and by equation 7 C0 = (gamma - alpha) / (gamma (1 + alpha)).
    Equation 8 divides by gamma again, because labelled samples are drawn with replacement; but a mean over a
    batch does not grow with the number of draws. With many unlabelled samples its C0 is almost zero, and a critic
    has next to nothing to gain from small values on labelled ones.

    Examples
    --------
    >>> weights = waal_coefficients(1000, 9000, 1000, mu=1.0)
    >>> round(weights.labeled, 6), round(weights.adversarial, 6)
    (0.444444, 0.9)
    >>> round(waal_coefficients(1000, 9000, 1000, equation=8).labeled, 6)
    0.049383
    """
    gamma, alpha = n_unlabeled / n_labeled, min(n_instances, n_unlabeled) / n_labeled
    if official_code:
        return Coefficients(mu, 1 / gamma)
    labeled = (gamma - alpha) / (gamma * (1 + alpha))
    return Coefficients(mu * gamma / (1 + gamma), labeled if equation == 7 else labeled / gamma)


def transport_objective(g_unlabeled: Tensor, g_labeled: Tensor, labeled_weight: float = 1.0) -> Tensor:
    """Return the mean critic value of the unlabelled batch less the weighted one of the labelled batch.

    Parameters
    ----------
    g_unlabeled, g_labeled : Tensor (n,), (m,)
        Critic values in [0, 1].
    labeled_weight : float, default=1.0
        C0. With 1 and a 1-Lipschitz critic the largest value is the Wasserstein-1 distance of the batches.

    Returns
    -------
    Tensor ()
        What the critic ascends and the features descend.

    Examples
    --------
    >>> transport_objective(torch.tensor([1.0, 0.5]), torch.tensor([0.25]), 0.5)
    tensor(0.6250)
    """
    return g_unlabeled.mean() - labeled_weight * g_labeled.mean()


def divergence_objective(g_unlabeled: Tensor, g_labeled: Tensor) -> Tensor:
    """Return the log-likelihood of a discriminator between unlabelled and labelled samples.

    Parameters
    ----------
    g_unlabeled, g_labeled : Tensor (n,), (m,)
        Probabilities of being unlabelled.

    Returns
    -------
    Tensor ()
        mean log g(unlabelled) + mean log(1 - g(labelled)), at most 0, logarithms cut at -100.

    Notes
    -----
    The ablation of the paper's appendix H. Equation 20 there has a minus before it, by which the
    discriminator would learn the labels exchanged and the features help it; its text, which says that the
    discriminator separates the sets and the features hinder it, is what is implemented.

    Examples
    --------
    >>> half = torch.tensor([0.5])
    >>> round(float(divergence_objective(half, half)), 4)
    -1.3863
    """
    as_unlabeled = F.binary_cross_entropy(g_unlabeled, torch.ones_like(g_unlabeled))
    as_labeled = F.binary_cross_entropy(g_labeled, torch.zeros_like(g_labeled))
    return -(as_unlabeled + as_labeled)


def separation(g_unlabeled: Tensor, g_labeled: Tensor) -> Tensor:
    """Return how well critic values tell two batches apart: the area under the ROC curve.

    Parameters
    ----------
    g_unlabeled, g_labeled : Tensor (n,), (m,)
        Critic values.

    Returns
    -------
    Tensor ()
        Share of the n m pairs in which the unlabelled sample has the larger value, equals counted half.

    Examples
    --------
    >>> separation(torch.tensor([0.9, 0.4]), torch.tensor([0.4, 0.1]))
    tensor(0.8750)
    """
    return ((g_unlabeled[:, None] - g_labeled).sign().mean() + 1) / 2


def gradient_penalty(critic: Critic, z_unlabeled: Tensor, z_labeled: Tensor, *, ends: bool = False) -> Tensor:
    """Return how far the critic's slope is from one, on random points between the batches.

    Parameters
    ----------
    critic : callable
        From features (n, d) to values (n,) or (n, 1).
    z_unlabeled, z_labeled : Tensor (n, d)
        Features, paired by row.
    ends : bool, default=False
        Whether both batches themselves are points too, as in the authors' code.

    Returns
    -------
    Tensor ()
        Mean of (||dg/dz|| - 1)^2, to be added to what the critic minimises.

    Examples
    --------
    >>> slope_two = lambda z: 2 * z[:, 0]
    >>> gradient_penalty(slope_two, torch.zeros(3, 4), torch.ones(3, 4))
    tensor(1.)
    """
    share = torch.rand(len(z_unlabeled), 1, dtype=z_unlabeled.dtype, device=z_unlabeled.device)
    points = share * z_unlabeled.detach() + (1 - share) * z_labeled.detach()
    if ends:
        points = torch.cat([points, z_unlabeled.detach(), z_labeled.detach()])
    points.requires_grad_(True)
    (slopes,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return (slopes.norm(dim=1) - 1).square().mean()
