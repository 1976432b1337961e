"""Every family of modules: each kind, method and chunking equals plain backward passes sample by sample, in float64."""

from __future__ import annotations

import copy
import warnings

import families
import pytest
import torch
from oracles_samples import count, relative_error, rows_of, sample_gradients, weigher
from zoo import assert_same_state, state_of

from modal_ntk.errors import InvalidInputError
from modal_ntk.features import kernel_times, loss_gradient_norms, loss_gradient_products, loss_gradient_sum
from modal_ntk.kernels import empirical_ntk, kernel_rows

F64 = {"dtype": torch.float64}
SINGLE = ("pseudo", "labelled", "loss", "mse")
PEERS = families.peers()

# What has no per-sample gradients, and the words that say so.
REFUSED = {("tables", "by frequency"): "the same for a sample alone and in a batch"}


def made(family, name, source=None):
    torch.manual_seed(3)
    module, x = (source or families.FAMILIES)[family][name]()
    return module, x, torch.arange(count(x)) % 3 if outputs(module, x) == 3 else torch.zeros(count(x)).long()


@torch.no_grad()
def outputs(module, x):
    one = rows_of(x, slice(0, 1))
    out = copy.deepcopy(module).eval()(**one) if isinstance(x, dict) else copy.deepcopy(module).eval()(one.clone())
    return out.numel()


def agrees(module, x, y, method, kinds=SINGLE, most=1e-8):
    before = state_of(module)
    for kind in kinds:
        want = sample_gradients(module, x, weigher(kind, y))
        for budget in (1, 2**30):
            options = {"kind": kind, "method": method, "memory_budget": budget, **F64}
            got, info = empirical_ntk(module, x, labels=y, return_info=True, **options)
            assert relative_error(got, want @ want.T) < most, (kind, budget, info["routes"])
            assert info["verified"]
    full = empirical_ntk(module, x, kind="full", method=method, **F64)
    rows = sample_gradients(module, x)
    assert relative_error(full.sum((2, 3)) / full.shape[2], rows @ rows.T) < most
    some = empirical_ntk(module, rows_of(x, slice(1, 3)), x, kind="trace", method=method, **F64)
    assert relative_error(some, full.diagonal(dim1=2, dim2=3).mean(-1)[1:3]) < 1e-8
    assert_same_state(before, state_of(module))


@pytest.mark.filterwarnings("ignore:torch.func cannot batch", "ignore:The route", "ignore:None of the inputs")
@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ("factored", ("loss",)),
        pytest.param("factored", SINGLE, marks=pytest.mark.slow),
        pytest.param("explicit", SINGLE, marks=pytest.mark.slow),
    ],
    ids=["factored", "factored, every kind", "explicit, every kind"],
)
@pytest.mark.parametrize(("family", "name"), families.CASES)
def test_kernels(family, name, method, kinds):
    """Kernels of all kinds, whole, in chunks and between unlike sets, are those of the gradients of the oracle."""
    module, x, y = made(family, name)
    if (family, name) in REFUSED:
        with pytest.raises(InvalidInputError, match=REFUSED[family, name]):
            empirical_ntk(module, x, method=method, **F64)
        return
    agrees(module, x, y, method, kinds)


@pytest.mark.filterwarnings("ignore:torch.func cannot batch", "ignore:The route", "ignore:None of the inputs")
@pytest.mark.parametrize(("family", "name"), families.CASES)
def test_gradients_written_out(family, name):
    """The explicit method gives the kernel of the oracle's gradients."""
    module, x, y = made(family, name)
    if (family, name) not in REFUSED:
        rows = sample_gradients(module, x, weigher("labelled", y))
        got = empirical_ntk(module, x, kind="labelled", labels=y, method="explicit", **F64)
        assert relative_error(got, rows @ rows.T) < 1e-8


@pytest.mark.filterwarnings("ignore:torch.func cannot batch", "ignore:The route", "ignore:No forward-mode")
@pytest.mark.filterwarnings("ignore:None of the inputs", "ignore:No second")
@pytest.mark.parametrize(("family", "name"), families.CASES)
def test_loss_gradients(family, name):
    """Lengths, sums, products with a direction, rows of kernels and kernels times weights are the oracle's."""
    module, x, y = made(family, name)
    if (family, name) in REFUSED:
        with pytest.raises(InvalidInputError):
            loss_gradient_norms(module, x, y, **F64)
        return
    rows = sample_gradients(module, x, weigher("loss", y))
    trained = {path: p for path, p in module.named_parameters() if p.requires_grad}
    direction = {path: torch.randn_like(p.double() if not p.is_complex() else p) for path, p in trained.items()}
    flat = torch.cat([(torch.view_as_real(d) if d.is_complex() else d).flatten() for d in direction.values()]).double()
    close = {"rtol": 1e-8, "atol": 1e-9 * float(rows.abs().max())}
    torch.testing.assert_close(loss_gradient_norms(module, x, y, **F64), rows.norm(dim=1), **close)
    torch.testing.assert_close(
        loss_gradient_products(module, x, y, direction, **F64), rows @ flat, rtol=1e-8, atol=1e-8
    )
    total = loss_gradient_sum(module, x, y, batch_size=4, **F64)
    got = torch.cat([(torch.view_as_real(g) if g.is_complex() else g).flatten() for g in total.values()])
    torch.testing.assert_close(got, rows.sum(0), rtol=1e-8, atol=1e-9)
    assert all(total[path].shape == p.shape for path, p in trained.items())
    held = kernel_rows(module, x, kind="loss", labels=y, **F64)
    assert relative_error(torch.from_numpy(held.matrix()), rows @ rows.T) < 1e-8
    full = empirical_ntk(module, x, kind="full", **F64)
    weights = torch.randn(full.shape[1], full.shape[3]).double()
    pushed = kernel_times(module, x, x, weights, **F64)
    torch.testing.assert_close(pushed, torch.einsum("ijab,jb->ia", full, weights), rtol=1e-7, atol=1e-8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize(("family", "name"), families.CASES)
def test_float32_is_the_same_to_its_rounding(family, name):
    """In single precision no module is refused that is not in double, and the kernel is near."""
    module, x, _ = made(family, name)
    if (family, name) in REFUSED:
        return
    rows = sample_gradients(module, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert relative_error(empirical_ntk(module, x), rows @ rows.T) < 2e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["factored", "explicit"])
@pytest.mark.parametrize(("family", "name"), families.CASES)
def test_on_the_gpu(family, name, method):
    """The GPU's kernel is the CPU's, also of recurrent nets, of which cuDNN has no backward pass in this mode."""
    module, x, y = made(family, name)
    if (family, name) in REFUSED:
        return
    options = {"kind": "loss", "labels": y, "method": method, **F64}
    want = empirical_ntk(module, x, **options)
    there = {part: v.cuda() for part, v in x.items()} if isinstance(x, dict) else x.cuda()
    got = empirical_ntk(module.cuda(), there, **options)
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), want, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "name"), [(family, name) for family, found in PEERS.items() for name in found])
def test_models_of_others(family, name):
    """Hugging Face's and timm's models, where they are installed, take factors, and agree."""
    module, x, y = made(family, name, PEERS)
    # Llama takes its norms in single precision, whatever the type.
    agrees(module, x, y, "factored", most=1e-6 if name == "llama" else 1e-8)
