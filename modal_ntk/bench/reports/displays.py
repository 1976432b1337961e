"""Pictures for a notebook, in the manner of scikit-learn's displays: curves, what was queried, and its images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from modal_ntk import checks
from modal_ntk.bench.analysis.statistics import Curves, curves
from modal_ntk.bench.loop.rounds import row_of
from modal_ntk.bench.loop.simulation import SimulatedActiveLearning
from modal_ntk.bench.reports import wording
from modal_ntk.bench.reports.figures import as_shown, lines_of, plot_lines
from modal_ntk.bench.storage.store import Store

Simulations = SimulatedActiveLearning | Sequence[SimulatedActiveLearning]


class CurveDisplay:
    """Scores against the number of labels.

    Parameters
    ----------
    curves : dict of str to Curves
        By name, as shown in the legend.
    metric : str, default="score"
        What is scored.

    Attributes
    ----------
    ax_, figure_ : matplotlib axes and figure
        Where it was plotted.
    lines_ : list of matplotlib lines
        One for each curve.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from modal_ntk import Margin
    >>> from modal_ntk.bench import SimulatedActiveLearning
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=500)
    >>> run = SimulatedActiveLearning(model, Margin(), n_initial=10, batch_size=5, n_rounds=3, random_state=0).fit(X, y)
    >>> display = CurveDisplay.from_estimator(run, name="margin")
    >>> display.lines_[0].get_xdata().tolist()
    [10, 15, 20, 25]
    """

    def __init__(self, curves: Mapping[str, Curves], *, metric: str = "score") -> None:
        self.curves = dict(curves)
        self.metric = metric

    @classmethod
    def from_estimator(
        cls, simulations: Simulations | Mapping[str, Simulations], *, name: str | None = None, ax: Any = None
    ) -> CurveDisplay:
        """Plot the curves of fitted simulations.

        Parameters
        ----------
        simulations : SimulatedActiveLearning, sequence of these, or dict of these by name
            Fitted. A sequence is one strategy with several seeds, whose mean is drawn in a band of one standard
            deviation.
        name : str, optional
            Of a single curve; by default its strategy's class.
        ax : matplotlib axes, optional
            Where to; new ones by default.

        Returns
        -------
        CurveDisplay
            Plotted.

        Raises
        ------
        NotFittedError
            If a simulation is not fitted.
        MissingExtraError
            If matplotlib is not installed.
        """
        if not isinstance(simulations, Mapping):
            runs = _as_runs(simulations)
            simulations = {name or type(runs[0].query_strategy).__name__: runs}
        rows = [
            row_of(key, seed, number, entry)
            for key, value in simulations.items()
            for seed, run in enumerate(_as_runs(value))
            for number, entry in enumerate(run.curve_)
        ]
        found = curves(rows)
        return cls({key: found[key] for key in simulations}).plot(ax)

    @classmethod
    def from_store(
        cls, out: str | os.PathLike[str], *, strategies: Sequence[str] | None = None, ax: Any = None
    ) -> CurveDisplay:
        """Plot the curves of a comparison.

        Parameters
        ----------
        out : str or path
            Its folder.
        strategies : sequence of str, optional
            Which; all by default.
        ax : matplotlib axes, optional
            Where to; new ones by default.

        Returns
        -------
        CurveDisplay
            Plotted.

        Raises
        ------
        InvalidInputError
            If the folder holds no results, or not those of a strategy.
        MissingExtraError
            If matplotlib is not installed.
        """
        store = Store.open(out)
        found = curves(store.rows())
        for strategy in strategies or ():
            checks.check_choice("strategies", strategy, found)
        chosen = {name: found[name] for name in strategies or found}
        return cls(chosen, metric=wording.metric(store.protocol())).plot(ax)

    def plot(self, ax: Any = None) -> CurveDisplay:
        """Plot the curves.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to; new ones by default.

        Returns
        -------
        CurveDisplay
            Itself.
        """
        self.ax_, self.figure_ = _axes(ax)
        self.lines_ = plot_lines(self.ax_, lines_of(self.curves))
        self.ax_.set(xlabel="number of labels", ylabel=self.metric)
        self.ax_.grid(alpha=0.3)
        for text in self.ax_.legend(loc="lower right").get_texts():
            text.set_parse_math(False)
        return self


class PicksDisplay:
    """What was queried, among the whole pool in two dimensions.

    Parameters
    ----------
    points : numpy.ndarray (n, 2)
        The pool.
    rounds : sequence of numpy.ndarray (b,), int
        Rows queried, round by round.

    Attributes
    ----------
    ax_, figure_ : matplotlib axes and figure
        Where it was plotted.
    picks_ : matplotlib collection
        The rows queried, coloured by their round.

    Examples
    --------
    >>> X = np.array([[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [0.0, 1.0, 1.0], [4.0, 1.0, 1.0]])
    >>> display = PicksDisplay.from_indices(X, [[0], [3]])
    >>> display.picks_.get_array().tolist()
    [1.0, 2.0]
    """

    def __init__(self, points: np.ndarray, rounds: Sequence[np.ndarray]) -> None:
        self.points = points
        self.rounds = list(rounds)

    @classmethod
    def from_estimator(
        cls, simulation: SimulatedActiveLearning, X: Any, *, projection: Any = "pca", ax: Any = None
    ) -> PicksDisplay:
        """Plot what a fitted simulation has labelled.

        Parameters
        ----------
        simulation : SimulatedActiveLearning
            Fitted to `X`.
        X : samples (n, ...)
            The pool.
        projection : {"pca"}, callable, or array (n, 2), default="pca"
            The two dimensions: principal components of the flattened samples; what a function makes of `X`, such as
            ``TSNE().fit_transform``; or points.
        ax : matplotlib axes, optional
            Where to; new ones by default.

        Returns
        -------
        PicksDisplay
            Plotted.

        Raises
        ------
        NotFittedError
            If the simulation is not fitted.
        MissingExtraError
            If matplotlib is not installed.
        """
        check_is_fitted(simulation)
        return cls.from_indices(X, [entry.indices for entry in simulation.curve_], projection=projection, ax=ax)

    @classmethod
    def from_indices(cls, X: Any, rounds: Sequence[Any], *, projection: Any = "pca", ax: Any = None) -> PicksDisplay:
        """Plot rows of a pool.

        Parameters
        ----------
        X : samples (n, ...)
            The pool.
        rounds : sequence of int, or of sequences of int
            Rows, round by round; of a plain sequence all in one round.
        projection, ax : optional
            As for `from_estimator`.

        Returns
        -------
        PicksDisplay
            Plotted.

        Raises
        ------
        InvalidInputError
            If a row is none of the pool, or the points are not (n, 2).
        MissingExtraError
            If matplotlib is not installed.
        """
        n = checks.n_rows(X)
        nested = [rounds] if len(rounds) and np.ndim(rounds[0]) == 0 else rounds
        rows = [checks.check_rows("rounds", some, n) for some in nested]
        return cls(_projected(X, projection, n), rows).plot(ax)

    def plot(self, ax: Any = None) -> PicksDisplay:
        """Plot pool and picks.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to; new ones by default.

        Returns
        -------
        PicksDisplay
            Itself.
        """
        self.ax_, self.figure_ = _axes(ax)
        self.ax_.scatter(*self.points.T, s=6, color="0.8", linewidths=0, label="pool", rasterized=True)
        rows = np.concatenate([np.zeros(0, np.int64), *self.rounds])
        numbers = np.repeat(np.arange(1, len(self.rounds) + 1), [len(some) for some in self.rounds])
        look = {"s": 28, "cmap": "viridis", "edgecolors": "white", "linewidths": 0.5}
        self.picks_ = self.ax_.scatter(*self.points[rows].T, c=numbers, **look)
        if len(self.rounds) > 1:
            self.figure_.colorbar(self.picks_, ax=self.ax_, label="round", ticks=np.unique(numbers)[:20])
        self.ax_.set(xticks=[], yticks=[], title=f"{len(rows)} of {len(self.points)} queried")
        return self


class ImagesDisplay:
    """Images of a batch, in a grid.

    Parameters
    ----------
    images : array (b, height, width), (b, channels, height, width) or (b, height, width, channels)
        With one channel or three, values of any range; each is scaled by itself.
    titles : sequence, optional
        What stands above each, such as its label.

    Attributes
    ----------
    axes_, figure_ : array of matplotlib axes, and figure
        Where they were plotted.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> display = ImagesDisplay.from_indices(digits.images, [3, 5, 7], titles=digits.target)
    >>> [axes.get_title() for axes in display.axes_.flat]
    ['3', '5', '7']
    """

    def __init__(self, images: Any, titles: Sequence[Any] | None = None) -> None:
        self.images = [as_shown(image) for image in np.asarray(images)]
        self.titles = None if titles is None else [str(title) for title in titles]

    @classmethod
    def from_indices(
        cls, X: Any, indices: Any, *, titles: Any = None, n_columns: int = 10, figure: Any = None
    ) -> ImagesDisplay:
        """Plot images of a pool.

        Parameters
        ----------
        X : array or tensor (n, ...)
            All images.
        indices : array-like (b,), int
            Which.
        titles : array-like (n,), optional
            What stands above each of `X`, such as labels.
        n_columns : int, default=10
            Images beside one another.
        figure : matplotlib figure, optional
            Where to; a new one by default.

        Returns
        -------
        ImagesDisplay
            Plotted.

        Raises
        ------
        InvalidInputError
            If they are no images, or a row is none of them.
        MissingExtraError
            If matplotlib is not installed.
        """
        rows = checks.check_rows("indices", indices, checks.n_rows(X))
        images = np.asarray(X.detach().cpu() if hasattr(X, "detach") else X)[rows]
        return cls(images, None if titles is None else np.asarray(titles)[rows]).plot(n_columns, figure)

    def plot(self, n_columns: int = 10, figure: Any = None) -> ImagesDisplay:
        """Plot the images.

        Parameters
        ----------
        n_columns : int, default=10
            Images beside one another.
        figure : matplotlib figure, optional
            Where to; a new one by default.

        Returns
        -------
        ImagesDisplay
            Itself.
        """
        n_columns = min(checks.check_integer("n_columns", n_columns), max(1, len(self.images)))
        n_rows = max(1, -(-len(self.images) // n_columns))
        high = 1.25 if self.titles else 1.0
        self.figure_ = _pyplot().figure(figsize=(n_columns, high * n_rows)) if figure is None else figure
        self.axes_ = self.figure_.subplots(n_rows, n_columns, squeeze=False)
        for axes in self.axes_.flat:
            axes.axis("off")
        for i, (axes, image) in enumerate(zip(self.axes_.flat, self.images, strict=False)):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            if self.titles:
                axes.set_title(self.titles[i], fontsize="small", parse_math=False)
        return self


def _as_runs(simulations: Simulations) -> list[SimulatedActiveLearning]:
    runs = [simulations] if isinstance(simulations, SimulatedActiveLearning) else list(simulations)
    for run in runs:
        check_is_fitted(run)
    return runs


def _projected(X: Any, projection: Any, n: int) -> np.ndarray:
    if isinstance(projection, str):
        checks.check_choice("projection", projection, ("pca",))
        flat = np.asarray(X.detach().cpu() if hasattr(X, "detach") else X, dtype=np.float64).reshape(n, -1)
        points = (
            PCA(2, svd_solver="full").fit_transform(flat)
            if flat.shape[1] > 2
            else np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
        )
    else:
        points = np.asarray(projection(X) if callable(projection) else projection, dtype=np.float64)
    if points.shape != (n, 2):
        remedy = "Pass points, or a function from the pool to them."
        raise checks.expected(f"a projection of shape ({n}, 2)", f"shape {points.shape}", remedy)
    return points


def _pyplot() -> Any:
    # The user's own.
    checks.check_installed("A display", ["matplotlib"], extra="bench")
    from matplotlib import pyplot as found

    return found


def _axes(ax: Any) -> tuple[Any, Any]:
    if ax is None:
        ax = _pyplot().subplots()[1]
    return ax, ax.figure
