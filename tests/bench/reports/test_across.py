"""Comparisons on several data sets together, against hand-made figures and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from modal_ntk.bench import compare_sets, report_across
from modal_ntk.bench.analysis.statistics import Curves, aubc, curves
from modal_ntk.bench.loop.simulation import Round
from modal_ntk.bench.reports.across import labels_saved
from modal_ntk.bench.storage.store import Store
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError

BUDGETS = np.array([10, 20, 60])


def curve(name, rows, budgets=BUDGETS):
    scores = np.array(rows, float)
    return Curves(name, tuple(range(len(scores))), np.array(budgets), scores, 0 * scores, 0 * scores)


def of(**rows):
    return {name: curve(name, scores) for name, scores in rows.items()}


def stored(folder, dataset, estimator="LogisticRegression()"):
    store = Store(folder)
    store.agree({"dataset": dataset, "estimator": estimator})
    for strategy, last in (("random_sampling", 0.7), ("margin", 0.8)):
        for seed in range(2):
            scores = [0.1, 0.5 + 0.1 * seed, last]
            store.add(
                strategy, seed, [Round(int(n), s, 0, 0, np.arange(n)) for n, s in zip(BUDGETS, scores, strict=True)]
            )
    return store


SETS = {
    "first": of(random_sampling=[[0.1, 0.5, 0.7], [0.1, 0.5, 0.7]], a=[[0.1, 0.7, 0.9], [0.1, 0.5, 0.7]]),
    "second": of(random_sampling=[[0.2, 0.4, 0.6]], a=[[0.2, 0.2, 0.2]], b=[[0.2, 0.4, 0.8]]),
    "third": of(random_sampling=[[0.2, 0.4, 0.6]], a=[[0.4, 0.6, 0.9]]),
}


def test_wins_and_labels_saved_by_hand():
    """The first set is one win and one tie, the second is lost, the third won; labels are saved on two of them."""
    found = compare_sets(SETS)
    assert (found.strategies, found.left_out, found.baseline) == (("a", "random_sampling"), ("b",), "random_sampling")
    assert found.wins[0, 1] == pytest.approx((0.75 + 0.0 + 1.0) / 3)
    assert found.wins[1, 0] == pytest.approx(1 - found.wins[0, 1])
    assert np.isnan(np.diag(found.wins)).all()
    # On the first set the mean of a is 0.6 at 20 labels and 0.8 at 60, hence 0.7 at 40; on the third 0.6 at 20.
    np.testing.assert_allclose(found.saved, [[1 - 40 / 60, 0], [np.nan, 0], [1 - 20 / 60, 0]])
    assert found.ranks.average.tolist() == [4 / 3, 5 / 3]
    assert found.table.splitlines()[1].split() == ["a", "1.33", "-", "0.6300", "0.2000", "0.7000"]


def test_more_labels_than_the_baseline_is_below_zero():
    """Twice the labels for the baseline's last score saves minus all of them."""
    slow, fast = curve("slow", [[0.1, 0.2, 0.3, 0.6]], [10, 20, 30, 60]), curve("fast", [[0.1, 0.4, 0.6]], [10, 20, 30])
    assert labels_saved(slow, fast) == pytest.approx(-1.0)
    assert labels_saved(fast, fast) == 0.0


@st.composite
def several_sets(draw):
    names = [f"s{i}" for i in range(draw(st.integers(2, 4)))]
    scores = st.sampled_from([0.2, 0.4, 0.5, 0.8])
    return {
        f"d{j}": {name: curve(name, [[draw(scores) for _ in BUDGETS] for _ in range(n_seeds)]) for name in names}
        for j, n_seeds in enumerate(draw(st.lists(st.integers(1, 3), min_size=2, max_size=4)))
    }


@settings(deadline=None, max_examples=50)
@given(several_sets())
def test_ranks_are_scipys_and_wins_add_up_to_ranks(sets):
    """Ranks of mean areas are SciPy's, as is Friedman's p; one plus all losses is the rank within a seed."""
    found = compare_sets(sets)
    means = np.array([[c.areas.mean() for c in by_name.values()] for by_name in sets.values()])
    np.testing.assert_allclose(found.areas, means)
    np.testing.assert_allclose(found.ranks.average, stats.rankdata(-means, axis=1).mean(axis=0))
    if means.shape[1] > 2 and (means != means[:, :1]).any():
        assert found.ranks.p_value == pytest.approx(stats.friedmanchisquare(*means.T).pvalue, nan_ok=True)
    within = [
        np.mean([stats.rankdata([-aubc(BUDGETS, c.scores[s]) for c in by_name.values()]) for s in range(n)], axis=0)
        for by_name in sets.values()
        for n in [len(next(iter(by_name.values())).seeds)]
    ]
    np.testing.assert_allclose(1 + np.nansum(found.wins, axis=0), np.mean(within, axis=0))


def test_what_cannot_be_compared_is_told():
    """One data set, one strategy, an unknown baseline or seeds that do not meet are refused."""
    first = SETS["first"]
    odd = {"second": {**SETS["second"], "a": curve("a", [[0.1]], [15])}}
    for sets, options, message in (
        ({"first": first}, {}, "two data sets"),
        ({"first": first, "other": of(b=[[0, 0, 0]])}, {}, "two strategies"),
        ({"first": first, **odd}, {}, "share on second"),
        (SETS, {"baseline": "b"}, "baseline"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            compare_sets(sets, **options)
    alone = {name: {key: c for key, c in found.items() if key != "random_sampling"} for name, found in SETS.items()}
    both = {name: {**found, "c": found["a"]} for name, found in alone.items()}
    assert np.isnan(compare_sets(both).saved).all()


def test_the_page_and_its_tables_hold_the_figures(tmp_path):
    """One page that needs nothing else, the picture of ranks, and three tables."""
    by_dataset = {}
    for name in ("one", "two"):
        store = stored(tmp_path / name, name)
        by_dataset[name] = curves(store.rows())
    found = report_across([tmp_path / "one", tmp_path / "two"], tmp_path)
    expected = compare_sets(by_dataset)
    np.testing.assert_array_equal(found.areas, expected.areas)
    text = (tmp_path / "across.html").read_text()
    assert "http" not in text.replace('http-equiv="Content', "")
    for name in found.strategies:
        assert name in text
    lines = (tmp_path / "across.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * len(found.strategies)
    assert {path.name for path in tmp_path.glob("across*")} == {
        "across.html",
        "across.csv",
        "across_ranks.csv",
        "across_ranks.png",
        "across_wins.csv",
    }


def test_the_page_names_what_is_scored(tmp_path):
    """Accuracy where that is it on all data sets; where they differ it is a score."""
    stored(tmp_path / "one", "one")
    for estimator, metric in (("LogisticRegression()", "accuracy"), ("MyModel()", "score")):
        stored(tmp_path / metric, "two", estimator)
        assert report_across([tmp_path / "one", tmp_path / metric], tmp_path).metric == metric
        text = (tmp_path / "across.html").read_text()
        assert text.count(f"mean {metric} over all labels") >= 2
        assert f"Mean {metric} over all labels." in text
        assert f"at its last mean {metric};" in text
        assert " area" not in text


def test_the_command_line_takes_folders_or_what_holds_them(tmp_path, capsys):
    """A folder of comparisons, or several, print each table and then what they say together; one has no across."""
    for name in ("one", "two"):
        stored(tmp_path / name, name)
    for arguments in ([str(tmp_path)], [str(tmp_path / "one"), str(tmp_path / "two")]):
        assert main(["report", *arguments]) == 0
        printed = capsys.readouterr().out
        assert printed.count("report: ") == 3
        assert "rank  saved" in printed
    assert main(["report", str(tmp_path / "one")]) == 0
    assert "rank  saved" not in capsys.readouterr().out
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "one")]) == 2
    assert "one comparison for each data set" in capsys.readouterr().err
