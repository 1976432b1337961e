"""Relations between samples against their two ratios."""

import numpy as np
import oracles_lpntk
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.errors import InvalidInputError
from modal_ntk.pruning import sample_relations

KINDS = ("interchangeable", "unrelated", "contradictory")


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), st.sampled_from([0.51, 0.75, 1.0]), st.sampled_from([0.0, 0.1, 0.4]))
def test_each_pair_is_of_the_kind_its_ratios_say(seed, threshold, unrelated):
    """Every pair has the kind that appendix C gives by its two ratios, and the sign of its kernel."""
    rng = np.random.default_rng(seed)
    features = rng.integers(-2, 3, size=(9, 2)).astype(float)
    features = features[features.any(1)]
    kernel = features @ features.T
    found = sample_relations(kernel, threshold=threshold, unrelated=unrelated)
    for i in range(len(kernel)):
        for j in range(len(kernel)):
            kind = oracles_lpntk.relation(kernel[i, i], kernel[j, j], kernel[i, j], threshold, unrelated)
            assert [bool(getattr(found, name)[i, j]) for name in KINDS] == [name == kind for name in KINDS]
    np.testing.assert_array_equal(found.sign, np.sign(kernel))


def test_a_sample_is_interchangeable_with_itself_and_contradicts_its_opposite():
    """One gradient twice is interchangeable, its opposite contradictory, a right angle unrelated, at any scale."""
    features = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 5.0]])
    for scale in (1, 1e-6, 1e6):
        found = sample_relations(scale * features @ features.T)
        np.testing.assert_array_equal(found.interchangeable, np.eye(3, dtype=bool))
        assert found.contradictory.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
        assert found.unrelated[2].tolist() == [True, True, False]
    assert repr(found) == "SampleRelations(pairs=9, interchangeable=3, unrelated=4, contradictory=2)"


def test_parts_of_a_kernel():
    """A block of rows and columns with their own entries gives that block of the relations; tensors are taken."""
    features = np.random.default_rng(0).normal(size=(8, 3))
    kernel = features @ features.T
    whole = sample_relations(kernel)
    part = sample_relations(
        torch.from_numpy(kernel[:3, 2:]), rows=kernel.diagonal()[:3], columns=torch.tensor(kernel.diagonal()[2:].copy())
    )
    for name in (*KINDS, "sign"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:3, 2:])


def test_no_gradient_is_unrelated_to_all():
    """A sample without gradient is unrelated to every other, itself included."""
    found = sample_relations(np.diag([0.0, 1.0]))
    assert found.unrelated.tolist() == [[True, True], [True, False]]
    assert found.interchangeable.tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        (np.eye(2), {"threshold": 0.5}, "threshold above 1/2 and up to 1, got 0.5"),
        (np.eye(2), {"threshold": 2}, "threshold to be a finite number between 0 and 1"),
        (np.eye(2), {"unrelated": 0.8}, "unrelated below threshold"),
        (np.ones(3), {}, r"kernel of shape \(n, m\)"),
        (np.ones((2, 3)), {}, r"rows for a kernel of shape \(2, 3\)"),
        (np.ones((2, 3)), {"rows": [1, 1, 1], "columns": [1, 1, 1]}, "2 values in rows"),
    ],
)
def test_bad_arguments_are_refused(kernel, options, message):
    """Wrong shapes and thresholds out of the paper's range are errors that say so."""
    with pytest.raises(InvalidInputError, match=message):
        sample_relations(kernel, **options)
