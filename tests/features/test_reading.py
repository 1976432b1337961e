"""What people's modules do beside computing: precision, wrappers, checkpoints, caches, odd batches; and refusals."""

from __future__ import annotations

import copy

import families
import numpy as np
import pandas as pd
import pytest
import torch
from oracles_samples import gram, relative_error, sample_gradients, weigher
from torch import nn
from zoo import assert_same_state, state_of

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.features import (
    gradient_sketch,
    kernel_times,
    loss_gradient_norms,
    loss_gradient_products,
    loss_gradient_sum,
)
from modal_ntk.kernels import empirical_ntk, kernel_rows

Y = [0, 1, 2, 0, 1, 2]


def mlp():
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def x():
    return torch.randn(6, 5)


def everything(module, samples, y, **options):
    """What the public functions give, by name."""
    direction = {name: torch.ones_like(p) for name, p in module.named_parameters() if p.requires_grad}
    return {
        "kernel": empirical_ntk(module, samples, **options),
        "written out": empirical_ntk(module, samples, method="explicit", **options),
        "rows": torch.from_numpy(kernel_rows(module, samples, kind="pseudo", **options).matrix()),
        "norms": loss_gradient_norms(module, samples, y, **options),
        "products": loss_gradient_products(module, samples, y, direction, **options),
        "sum": torch.cat([g.flatten() for g in loss_gradient_sum(module, samples, y, **options).values()]),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_held_in_single(dtype):
    """Nets of half precision give kernels in float32, near the exact ones and without overflow."""
    module, samples = mlp().to(dtype), x()
    found = everything(module, samples, Y)
    assert all(value.dtype == torch.float32 for value in found.values())
    want = gram(module.float(), samples.to(dtype).float())
    for name in ("kernel", "written out", "rows"):
        assert relative_error(found[name], want) < 0.05, name
    large = nn.Linear(5, 3).to(dtype)
    kernel = empirical_ntk(large, 200 * torch.ones(4, 5))
    torch.testing.assert_close(kernel, torch.full((4, 4), 200.0**2 * 5 + 1), rtol=1e-2, atol=0)
    half = torch.float16 if dtype == torch.float16 else torch.bfloat16
    assert empirical_ntk(mlp(), samples, dtype=half).dtype == torch.float32


def test_overflow_is_told_with_a_way_out():
    """Outputs beyond half precision are an error, and the remedy that it names works."""
    module = nn.Linear(5, 3).half()
    with torch.no_grad():
        module.weight.fill_(300)
    samples = 300 * torch.ones(4, 5)
    with pytest.raises(InvalidInputError, match=r"finite outputs.*dtype=torch\.float32"):
        empirical_ntk(module, samples)
    assert empirical_ntk(module, samples, dtype=torch.float32).isfinite().all()


def test_the_callers_autocast_is_not_the_kernels():
    """What surrounds the call changes no bit of what it gives."""
    module, samples = mlp(), x()
    want = empirical_ntk(module, samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(empirical_ntk(module, samples), want)


class Cast(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = self.body(x)
        return self.head(z.float() if x.dtype == torch.float32 else z)


def test_autocast_inside_a_module_is_part_of_it():
    """A layer in reduced precision is read as such; in float64, which autocast leaves alone, it is exact."""
    module, samples = Cast(), x()
    want = gram(module, samples)
    found = everything(module, samples, Y)
    assert relative_error(found["kernel"], want) < 0.05
    assert relative_error(found["rows"], want) < 0.05
    assert relative_error(empirical_ntk(module, samples, dtype=torch.float64), want) < 1e-10


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")], ids=["parallel", "compiled"]
)
def test_wrapped_modules_are_read_as_what_they_wrap(wrap):
    """A wrapper changes names of parameters alone."""
    module, samples = mlp(), x()
    plain, wrapped = everything(module, samples, Y), everything(wrap(module), samples, Y)
    for name, value in plain.items():
        torch.testing.assert_close(wrapped[name], value)
    names = set(loss_gradient_sum(wrap(module), samples, Y))
    assert names == {name for name, _ in wrap(module).named_parameters()}


def test_a_compiled_part_is_read_as_it_was_written():
    """A module with a compiled layer has the kernel of the module without."""
    module, samples = mlp(), x()
    want = empirical_ntk(module, samples)
    torch.testing.assert_close(empirical_ntk(nn.Sequential(torch.compile(module, backend="eager")), samples), want)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_modules_that_cannot_be_read_are_refused():
    """Scripted, exported and uninitialised modules, and what is none; a lazy one is readable once it is initialised."""
    samples = x()
    scripted = torch.jit.script(mlp())
    with pytest.raises(InvalidInputError, match="in Python"):
        empirical_ntk(scripted, samples)
    exported = torch.export.export(mlp(), (samples,)).module()
    with pytest.raises(InvalidInputError, match="evaluation mode"):
        empirical_ntk(exported, samples)
    with pytest.raises(InvalidInputError, match=r"torch\.nn\.Module"):
        empirical_ntk(torch.tanh, samples)
    lazy = nn.LazyLinear(3)
    with pytest.raises(InvalidInputError, match="initialised parameters"):
        empirical_ntk(lazy, samples)
    lazy(samples)
    assert relative_error(empirical_ntk(lazy, samples), gram(lazy, samples)) < 1e-5


def test_samples_that_are_not_finite_are_named():
    """The error gives the rows, for outputs and for gradients."""
    samples = x()
    samples[4, 1] = float("nan")
    for compute in (
        lambda: empirical_ntk(mlp(), samples),
        lambda: empirical_ntk(mlp(), samples, method="explicit"),
        lambda: loss_gradient_norms(mlp(), samples, Y),
    ):
        with pytest.raises(InvalidInputError, match=r"samples \[\d\]"):
            compute()
    rooted = families.Net(
        lambda s, v: s.layer(v).square().sum(1, keepdim=True).sqrt(), layer=nn.Linear(5, 3, bias=False)
    )
    with pytest.raises(InvalidInputError, match="finite gradients by layer"):
        empirical_ntk(rooted, torch.zeros(3, 5))


@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor, lambda v: pd.Series(v, index=range(10, 16))])
def test_labels_of_any_form_one_for_each_sample(form):
    """Labels are read by position, and another number of them is refused by every function."""
    module, samples = mlp(), x()
    total = loss_gradient_sum(module, samples, form(Y))
    want = loss_gradient_norms(module, samples, Y)
    torch.testing.assert_close(loss_gradient_norms(module, samples, form(Y)), want)
    torch.testing.assert_close(
        loss_gradient_products(module, samples, form(Y), total, batch_size=4),
        loss_gradient_products(module, samples, Y, total),
    )
    for wrong in ([0] * 7, [0] * 4):
        for compute in (
            lambda v=wrong: empirical_ntk(module, samples, kind="loss", labels=list(v)),
            lambda v=wrong: kernel_rows(module, samples, labels=v),
            lambda v=wrong: loss_gradient_norms(module, samples, v),
            lambda v=wrong: loss_gradient_sum(module, samples, v),
            lambda v=wrong: loss_gradient_products(module, samples, v, total),
            lambda v=wrong: gradient_sketch(module, samples, 3, kind="loss", labels=v),
        ):
            with pytest.raises(InvalidInputError, match="6 labels, one for each sample"):
                compute()


def test_signs_longer_than_the_samples_are_refused():
    """Signs are one row for each sample."""
    with pytest.raises(InvalidInputError, match="6 signs"):
        empirical_ntk(mlp(), x(), kind="labelled", signs=torch.ones(8, 3))


@pytest.mark.filterwarnings("ignore:torch.func cannot batch")
@pytest.mark.parametrize("method", ["factored", "explicit"])
@pytest.mark.parametrize("width", [1, 3])
def test_outputs_squeezed_of_one_sample(method, width):
    """One sample whose output loses its axes is as good as many."""
    module = families.Net(lambda s, v: s.layer(v).squeeze(), layer=nn.Linear(5, width))
    samples = x()
    want = gram(nn.Sequential(module.layer), samples)
    assert relative_error(empirical_ntk(module, samples, method=method), want) < 1e-5
    assert relative_error(empirical_ntk(module, samples[:1], method=method), want[:1, :1]) < 1e-5


def test_containers_and_types():
    """Frames and read-only arrays are samples; types are torch's."""
    module, samples = mlp(), x()
    want = empirical_ntk(module, samples)
    torch.testing.assert_close(empirical_ntk(module, pd.DataFrame(samples.numpy())), want)
    fixed = samples.numpy().copy()
    fixed.flags.writeable = False
    torch.testing.assert_close(empirical_ntk(module, fixed), want)
    with pytest.raises(InvalidInputError, match=r"torch\.float64"):
        empirical_ntk(module, samples, dtype="float64")
    with pytest.raises(InvalidInputError, match="samples of numbers"):
        empirical_ntk(module, ["a", "b"])
    with pytest.raises(InvalidInputError, match=r"shape \(n, \.\.\.\)"):
        empirical_ntk(module, 3.0)


def test_no_samples():
    """A sum over none is zero, products with none are none, other functions say what they need."""
    module, none = mlp(), torch.zeros(0, 5)
    total = loss_gradient_sum(module, none, [])
    assert not any(g.any() for g in total.values())
    assert loss_gradient_products(module, none, [], total).shape == (0,)
    assert empirical_ntk(module, x(), none).shape == (6, 0)
    for compute in (lambda: empirical_ntk(module, none), lambda: loss_gradient_norms(module, none, [])):
        with pytest.raises(InvalidInputError, match="at least one sample"):
            compute()


def test_weights_of_kernel_times_fit_its_samples():
    """More or fewer weights than samples are refused."""
    for wrong in (torch.ones(7, 3), torch.ones(4, 3), torch.ones(6, 2), torch.ones(6)):
        with pytest.raises(InvalidInputError, match=r"weights of shape \(6, 3\)"):
            kernel_times(mlp(), x(), x(), wrong)


def test_the_fast_path_of_encoders_is_left_as_it_was():
    """Switched off while a net is read, on before and after, and off if it was off."""
    module, samples = families.FAMILIES["attention"]["encoder with padding"]()
    for state in (True, False):
        torch.backends.mha.set_fastpath_enabled(state)
        try:
            rows = sample_gradients(module, samples, weigher("loss", Y))
            got = empirical_ntk(module, samples, kind="loss", labels=Y, dtype=torch.float64)
            assert torch.backends.mha.get_fastpath_enabled() is state
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        assert relative_error(got, rows @ rows.T) < 1e-10


@pytest.mark.parametrize("method", ["factored", "explicit"])
def test_a_module_that_keeps_tensors_can_be_copied_as_before(method):
    """Attributes that forward sets are what they were, and copies of the module can be made."""
    module, samples = families.FAMILIES["control flow"]["attributes set"]()
    module.eval()
    with torch.no_grad():
        module(samples)
    before, state = module.seen, state_of(module)
    empirical_ntk(module, samples, method=method)
    assert module.seen is before
    assert_same_state(state, state_of(module))
    copy.deepcopy(module)


def test_the_loop_says_why():
    """One sample at a time comes with the parameters, the reason and what it means."""
    module, samples = families.FAMILIES["tables"]["largest norm"]()
    with pytest.warns(ModalNTKWarning, match=r"weight.*one sample at a time, which is slow"):
        empirical_ntk(module, samples, dtype=torch.float64)
