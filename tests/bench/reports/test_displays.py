"""Displays show what is there: curves, picks and images."""

import matplotlib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from modal_ntk import NTKCPL, Margin, Switch, TypiClust
from modal_ntk.bench import CurveDisplay, ImagesDisplay, PicksDisplay, SimulatedActiveLearning
from modal_ntk.bench.loop.rounds import Round
from modal_ntk.bench.storage.store import Store
from modal_ntk.errors import InvalidInputError

matplotlib.use("Agg")
X, y = load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def _closed():
    yield
    matplotlib.pyplot.close("all")


def simulated(seed=0, n_rounds=3):
    model = LogisticRegression(max_iter=500)
    return SimulatedActiveLearning(model, Margin(), n_initial=10, batch_size=5, n_rounds=n_rounds, random_state=seed)


@pytest.fixture(scope="module")
def runs():
    return [simulated(seed).fit(X, y) for seed in range(2)]


class TestCurves:
    """`CurveDisplay`."""

    def test_one_run(self, runs):
        """The line is the run's own curve, called after its strategy."""
        shown = CurveDisplay.from_estimator(runs[0])
        (line,) = shown.lines_
        assert line.get_xdata().tolist() == [entry.n_labels for entry in runs[0].curve_]
        assert line.get_ydata().tolist() == [entry.score for entry in runs[0].curve_]
        assert line.get_label() == "Margin"
        assert len(shown.ax_.collections) == 0

    def test_several_seeds_and_names(self, runs):
        """Of several seeds the mean is drawn in its band, on the axes given."""
        axes = matplotlib.pyplot.subplots()[1]
        shown = CurveDisplay.from_estimator({"two seeds": runs, "one": runs[0]}, ax=axes)
        assert shown.ax_ is axes
        mean = np.mean([[entry.score for entry in run.curve_] for run in runs], axis=0)
        np.testing.assert_allclose(shown.lines_[0].get_ydata(), mean, rtol=1e-12)
        assert [line.get_label() for line in shown.lines_] == ["two seeds", "one"]
        assert len(axes.collections) == 1

    def test_only_what_all_seeds_have_reached(self, runs):
        """A run that stopped early cuts the others where it ends."""
        shown = CurveDisplay.from_estimator([runs[0], simulated(1, n_rounds=1).fit(X, y)])
        assert shown.lines_[0].get_xdata().tolist() == [10, 15]

    def test_a_store(self, tmp_path):
        """The folder of a comparison is read, and the metric named; a strategy may be chosen."""
        store = Store(tmp_path)
        store.agree({"dataset": "made up", "estimator": "LogisticRegression()"})
        for name, score in (("margin", 0.5), ("random_sampling", 0.25)):
            store.add(name, 0, [Round(10, score, 0.0, 0.0, np.arange(10))])
        assert CurveDisplay.from_store(tmp_path).ax_.get_ylabel() == "accuracy"
        shown = CurveDisplay.from_store(tmp_path, strategies=["random_sampling"])
        assert shown.lines_[0].get_ydata().tolist() == [0.25]
        with pytest.raises(InvalidInputError, match="margin"):
            CurveDisplay.from_store(tmp_path, strategies=["nobody"])

    def test_an_unfitted_run_has_none(self):
        """There is nothing to plot before the fit."""
        with pytest.raises(NotFittedError):
            CurveDisplay.from_estimator(simulated())


class TestPicks:
    """`PicksDisplay`."""

    def test_rounds_of_a_run(self, runs):
        """Each row labelled is shown in the colour of its round, at its place among the pool."""
        shown = PicksDisplay.from_estimator(runs[0], X)
        sizes = [len(entry.indices) for entry in runs[0].curve_]
        assert shown.picks_.get_array().tolist() == np.repeat([1, 2, 3, 4], sizes).tolist()
        np.testing.assert_array_equal(shown.picks_.get_offsets(), shown.points[runs[0].labeled_indices_])

    def test_principal_components(self):
        """By default the two directions of largest variance: distances of points in a plane stay."""
        rng = np.random.default_rng(0)
        plane = rng.normal(size=(30, 2)) @ np.linalg.qr(rng.normal(size=(5, 2)))[0].T
        points = PicksDisplay.from_indices(plane, [0, 1]).points
        gaps = [np.linalg.norm(each[:, None] - each[None], axis=2) for each in (plane, points)]
        np.testing.assert_allclose(*gaps, atol=1e-10)

    @pytest.mark.parametrize("projection", [X[:, :2], lambda rows: rows[:, :2]])
    def test_any_projection(self, projection):
        """Points, or what makes them."""
        shown = PicksDisplay.from_indices(X, [[3], [4, 5]], projection=projection)
        np.testing.assert_array_equal(shown.points, X[:, :2])

    @pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
    def test_images_and_few_columns(self, kind):
        """Samples are flattened; a single column lies on a line."""
        images = np.zeros((4, 1, 3, 3)) + np.arange(4.0)[:, None, None, None]
        assert PicksDisplay.from_indices(kind(images), [1]).points.shape == (4, 2)
        assert PicksDisplay.from_indices(kind(np.arange(4.0)[:, None]), [1]).points[:, 1].tolist() == [0.0] * 4

    def test_what_is_none(self):
        """Rows outside the pool, points of three dimensions and unknown words are refused."""
        with pytest.raises(InvalidInputError, match="rounds"):
            PicksDisplay.from_indices(X, [200])
        with pytest.raises(InvalidInputError, match=r"\(150, 2\)"):
            PicksDisplay.from_indices(X, [1], projection=X)
        with pytest.raises(InvalidInputError, match="pca"):
            PicksDisplay.from_indices(X, [1], projection="tsne")


class TestImages:
    """`ImagesDisplay`."""

    @pytest.mark.parametrize("shape", [(7, 5, 4), (7, 1, 5, 4), (7, 3, 5, 4), (7, 5, 4, 3), (7, 5, 4, 1)])
    @pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
    def test_layouts(self, shape, kind):
        """Channels first or last, one or three, are drawn as they are, each between black and white."""
        images = np.random.default_rng(0).normal(size=shape)
        shown = ImagesDisplay.from_indices(kind(images), [6, 0, 2], titles=list("abcdefg"), n_columns=2)
        assert shown.axes_.shape == (2, 2)
        assert [axes.get_title() for axes in shown.axes_.flat] == ["g", "a", "c", ""]
        drawn = shown.axes_[0, 0].images[0].get_array()
        assert drawn.shape[:2] == (5, 4)
        assert (drawn.min(), drawn.max()) == (0.0, 1.0)
        assert not shown.axes_[1, 1].images

    def test_rows_are_no_images(self):
        """What is flat is refused with what to do."""
        with pytest.raises(InvalidInputError, match="Reshape"):
            ImagesDisplay.from_indices(X, [0])


@pytest.mark.parametrize("thing", [NTKCPL(max_clusters=50), Switch([(TypiClust(), 20), (Margin(), None)]), simulated()])
def test_notebooks_show_strategies_and_simulations(thing):
    """scikit-learn's page of an estimator, with its class and the parameters that were set."""
    shown = thing._repr_html_()
    assert type(thing).__name__ in shown
    assert "sk-estimator" in shown or "sk-container" in shown or "sk-top-container" in shown


def test_a_round_prints_on_one_line(runs):
    """The rows and scores of a round are not printed."""
    assert len(repr(runs[0].curve_[-1])) < 250
    assert "\n" not in repr(runs[0].curve_)
    assert "array" not in repr(runs[0].curve_)
