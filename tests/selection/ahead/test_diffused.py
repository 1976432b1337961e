"""The rounds of DDAL against a dense float64 replay."""

import numpy as np
import oracles_diffusion as oracle
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.errors import InvalidInputError
from modal_ntk.selection import certainty, select_by_diffusion
from modal_ntk.selection.ahead.diffused import CRITERIA
from modal_ntk.structure import knn_transition


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, np.inf])
def test_criteria_follow_their_formulas(name, p):
    """Each measure agrees with its definition row by row, zeros included."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (20, 4)) if name in ("min", "norm") else rng.dirichlet(np.ones(4), 20)
    values[0] = np.eye(4)[2]
    expected = [oracle.criterion(row, name, p) for row in values.tolist()]
    np.testing.assert_allclose(certainty(values, name, p), expected, atol=1e-12)


@pytest.mark.parametrize("name", CRITERIA)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), per_round=st.sampled_from([None, 1, 2, 3]), n_labeled=st.integers(0, 5))
def test_every_round_takes_the_smallest_scores_of_the_dense_diffusion(name, seed, per_round, n_labeled):
    """With an oracle, scores are the dense ones of their round, and no candidate left over scored less."""
    rng = np.random.default_rng(seed)
    M = knn_transition(rng.normal(size=(24, 2)), 3)
    answers = rng.integers(3, size=24)
    labeled = rng.choice(24, n_labeled, replace=False)
    candidates = rng.permutation(np.setdiff1d(np.arange(24), labeled))[:16]
    selected = select_by_diffusion(
        M, labeled, answers[labeled], 7, candidates=candidates, n_steps=3, n_classes=3, criterion=name,
        per_round=per_round, oracle=lambda i: answers[candidates[i]], random_state=seed,
    )  # fmt: skip
    rounds = [candidates[selected.indices[i : i + (per_round or 7)]] for i in range(0, 7, per_round or 7)]
    tables = oracle.naive_rounds(M.toarray(), labeled, answers[labeled], candidates, rounds, 3, 3, name, answers)
    expected = [table[int(i)] for rows, table in zip(rounds, tables, strict=True) for i in rows]
    np.testing.assert_allclose(selected.scores, expected, atol=1e-12)
    for rows, table in zip(rounds, tables, strict=True):
        left = [score for i, score in table.items() if i not in rows]
        assert not left or max(table[int(i)] for i in rows) <= min(left) + 1e-12
    assert selected.info["n_rounds"] == len(rounds)
    assert selected.info["labels"] == answers[candidates[selected.indices]].tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), n_labeled=st.integers(0, 5), n_steps=st.integers(1, 4))
def test_reach_is_counted_as_walks_are_counted(seed, n_labeled, n_steps):
    """Stage, unreached count, histogram and number of explored picks are those of the shortest walks."""
    rng = np.random.default_rng(seed)
    M = knn_transition(rng.normal(size=(30, 2)), 3)
    labeled = rng.choice(30, n_labeled, replace=False)
    selected = select_by_diffusion(M, labeled, np.arange(n_labeled) % 2, 6, n_steps=n_steps, random_state=0)
    rest = np.setdiff1d(np.arange(30), labeled)
    hops = oracle.dense_hops(M.toarray(), labeled)[rest]
    assert selected.info["n_unreached"] == (hops > n_steps).sum()
    assert selected.info["hops"] == [int((hops == h).sum()) for h in range(1, n_steps + 1)]
    assert selected.info["stage"] == ("exploring" if (hops > n_steps).any() else "refining")
    assert selected.info["n_explored"] == (hops[selected.indices] > n_steps).sum()


def test_unreached_rows_come_first_and_every_one_of_them_can():
    """In exploration each unreached row, and no other, is the first pick of some seed; a seed repeats itself."""
    M = knn_transition(oracle.X1, 2)
    with zoo.generators_untouched():
        picks = [int(select_by_diffusion(M, [0], ["a"], 1, n_steps=2, random_state=s).indices[0]) for s in range(40)]
    assert set(picks) == {2, 3, 4}  # rows 3, 4, 5
    assert picks == [
        int(select_by_diffusion(M, [0], ["a"], 1, n_steps=2, random_state=s).indices[0]) for s in range(40)
    ]


def test_refinement_takes_the_row_between_the_classes():
    """With labels at both ends of a group the row between them scores exactly zero."""
    M = knn_transition(oracle.X1, 2)
    selected = select_by_diffusion(M, [0, 3, 2], ["a", "b", "c"], 1, n_steps=2)
    assert selected.indices.tolist() == [0]  # row 1
    assert selected.scores.tolist() == [0.0]
    assert selected.info["stage"] == "refining"


@pytest.mark.parametrize("per_round", [None, 1, 2])
def test_farthest_first_takes_the_row_most_hops_away(per_round):
    """On a line of constant weights, with a label at its start, its far end comes first, then the middle."""
    line = knn_transition(np.arange(41.0)[:, None], 2, similarity="constant")
    selected = select_by_diffusion(line, [0], [0], 3, n_steps=4, tie_break="farthest", per_round=per_round)
    rows = [0, *(selected.indices + 1).tolist()]
    assert rows[1] in (39, 40)  # the last row leads to both before it
    assert 18 <= rows[2] <= 22
    for i in (1, 2, 3):
        hops = oracle.dense_hops(line.toarray(), rows[:i])
        assert hops[rows[i]] == hops.max()


def test_farthest_first_enters_every_group_before_any_twice():
    """Groups no walk connects are infinitely far apart, so each gets one of the first picks."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(100 * g, 1, size=(15, 2)) for g in range(6)])
    selected = select_by_diffusion(knn_transition(X, 14), [0], [0], 5, n_steps=3, tie_break="farthest", random_state=1)
    assert sorted((selected.indices + 1) // 15) == [1, 2, 3, 4, 5]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    per_round=st.sampled_from([None, 1, 3]),
    tie_break=st.sampled_from(["random", "farthest"]),
    symmetrise=st.sampled_from([None, "max"]),
)
def test_every_component_without_a_label_is_entered_before_any_other_pick(seed, per_round, tie_break, symmetrise):
    """As long as a part of the graph has no label, the next pick opens one, however large the others are."""
    rng = np.random.default_rng(seed)
    sizes = [60, 8, 20, 8, 12]
    part = np.repeat(np.arange(5), sizes)
    X = np.concatenate([rng.normal(100 * k, 1, size=(n, 2)) for k, n in enumerate(sizes)])
    M = knn_transition(X, 5, symmetrise=symmetrise)
    # Neighbour graphs of single clouds may fall apart too: parts of the graph as dense powers find them.
    joined = np.linalg.matrix_power((M.toarray() + M.toarray().T > 0) + np.eye(108), 108) > 0
    component = np.unique(joined, axis=0, return_inverse=True)[1].ravel()
    candidates = rng.permutation(np.arange(3, 108))
    selected = select_by_diffusion(
        M, [0, 1, 2], [0, 1, 0], 10, candidates=candidates, n_steps=2,
        per_round=per_round, tie_break=tie_break, random_state=seed,
    )  # fmt: skip
    without = set(component[candidates].tolist()) - set(component[:3].tolist())
    assert set(part[3:].tolist()) - {0} == set(part[np.isin(component, list(without))].tolist()) - {0}
    entered = component[candidates[selected.indices]][: len(without)]
    assert len(set(entered.tolist())) == min(10, len(without))
    assert set(entered.tolist()) <= without
    assert selected.info["n_uncovered"] == len(without)
    assert selected.info["n_components"] == component.max() + 1
    assert (selected.scores[: len(without)] == 0).all()


def test_a_component_is_entered_anywhere():
    """The row that opens a component is drawn from all its rows, over seeds each of them."""
    X = np.concatenate([np.arange(4.0), 100 + np.arange(6.0)])[:, None]
    opened = {
        int(select_by_diffusion(knn_transition(X, 2), [0], [0], 1, n_steps=2, random_state=seed).indices[0])
        for seed in range(60)
    }
    assert opened == set(range(3, 9))


def test_temporary_labels_spread_a_batch():
    """One pick a round with guessed labels reaches six groups with six picks, and asks nobody."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(100 * g, 1, size=(8, 2)) for g in range(6)])
    M = knn_transition(X, 7)
    for seed in range(5):
        selected = select_by_diffusion(M, [], [], 6, n_steps=2, per_round=1, random_state=seed)
        assert sorted(selected.indices // 8) == list(range(6))
        assert "labels" not in selected.info
        assert selected.info["n_explored"] == 6


def test_a_temporary_label_is_the_largest_diffused_class():
    """Rows reached by one class alone take that class: scores are those of labels that are all alike."""
    M = knn_transition(np.arange(12.0)[:, None], 2)
    selected = select_by_diffusion(M, [0], ["a"], 6, n_steps=12, n_classes=3, per_round=1, random_state=0)
    rows = (selected.indices + 1).tolist()
    alike = np.zeros(12, np.int64)
    tables = oracle.naive_rounds(M.toarray(), [0], [0], range(1, 12), [[i] for i in rows], 12, 3, "min", alike)
    np.testing.assert_allclose(selected.scores, [t[i] for t, i in zip(tables, rows, strict=True)], atol=1e-12)


def test_an_oracle_may_name_a_new_class():
    """A class first met inside a query gets a column of its own; every pick is asked about."""
    M = knn_transition(oracle.X1, 2)
    names = np.array(["a", "b", "c", "d", "e"])
    selected = select_by_diffusion(M, [0], ["z"], 5, n_steps=2, per_round=1, oracle=lambda i: names[i], random_state=0)
    assert sorted(selected.indices.tolist()) == [0, 1, 2, 3, 4]
    assert selected.info["labels"] == names[selected.indices].tolist()


def test_torch_chooses_what_scipy_chooses():
    """The torch route, here on torch's own CPU name, has the picks and scores of the SciPy route."""
    rng = np.random.default_rng(0)
    M = knn_transition(rng.normal(size=(80, 2)), 5)
    arguments = (M, np.arange(6), np.arange(6) % 3, 10)
    scipy = select_by_diffusion(*arguments, n_steps=4, per_round=3, random_state=0)
    torch = select_by_diffusion(*arguments, n_steps=4, per_round=3, random_state=0, device="cpu:0")
    np.testing.assert_array_equal(scipy.indices, torch.indices)
    np.testing.assert_allclose(scipy.scores, torch.scores, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "least"}, "criterion to be one of"),
        ({"tie_break": "first"}, "tie_break to be one of 'random', 'farthest'"),
        ({"n_instances": 6}, "between 1 and the pool's 5"),
        ({"per_round": 0}, "per_round to be an integer of at least 1 or None"),
        ({"candidates": [0, 1, 2]}, "candidates without a label"),
        ({"labels": [0, 1]}, "1 labels"),
        ({"oracle": lambda i: [1, 2, 3], "per_round": 1, "n_instances": 2}, "1 labels, one for each .* got 3 labels"),
    ],
)
def test_bad_arguments_are_explained(options, message):
    """Each bad argument is an error that says what was expected."""
    arguments = {"labeled": [0], "labels": [0], "n_instances": 1, "n_steps": 2, **options}
    with pytest.raises(InvalidInputError, match=message):
        select_by_diffusion(knn_transition(oracle.X1, 2), **arguments)
