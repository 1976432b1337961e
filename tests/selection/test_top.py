"""The best of a vector against a full sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modal_ntk.selection import top_b


@given(
    scores=st.lists(st.integers(-3, 3) | st.floats(-2, 2), min_size=1, max_size=30),
    seed=st.integers(0, 100),
    data=st.data(),
)
def test_it_is_the_head_of_a_full_sort(scores, seed, data):
    """Whatever the ties, picks are the first of all positions sorted by score, then by the generator's draws."""
    scores = np.array(scores, dtype=np.float64)
    n_instances = data.draw(st.integers(1, len(scores)))
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), -scores))
    np.testing.assert_array_equal(top_b(scores, n_instances, rng=np.random.default_rng(seed)), order[:n_instances])
