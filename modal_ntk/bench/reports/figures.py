"""The pictures and files of a report, narrow enough for a phone; drawn without a display and a user's pyplot."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.analysis.significance import Ranks
from modal_ntk.bench.analysis.statistics import Curves
from modal_ntk.bench.reports.queried import Queried
from modal_ntk.writing import replacing, write_csv

# Okabe and Ito's colours, told apart by colour-blind eyes too; markers help where colours come round again.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6BB1")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_WIDTH = 5.0  # inches
_SHORT = 24  # characters of a name for which half a picture has room
# Not in every report: without data, baseline, matplotlib or anything to rank.
_AT_TIMES = ("balance.png", "classes.csv", "curves.png", "gain.png", "images_[0-9]*.png", "ranks.csv", "ranks.png")

NO_PICTURES = 'matplotlib is not installed, so the page has no pictures. Run: pip install "modal-ntk[bench]"'

Line = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Numbers of labels, a value at each, and half the height of a band around it."""


def can_draw() -> bool:
    """Say whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None and sys.modules.get("matplotlib", 1) is not None


def styles(strategies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a colour and a marker for each strategy, the same in every picture.

    Parameters
    ----------
    strategies : sequence of str
        Names.

    Returns
    -------
    dict of str to dict
        Arguments of matplotlib's ``plot``.
    """
    pairs = zip(cycle(_COLOURS), cycle(_MARKERS), strict=False)
    looks = ({"color": c, "marker": m, "markersize": 4, "linewidth": 1.5} for c, m in pairs)
    return dict(zip(strategies, looks, strict=False))


def figure(height: float = 4.2) -> tuple[Any, Any]:
    """Return an empty figure with axes.

    Parameters
    ----------
    height : float, default=4.2
        In inches; the width is that of all pictures.

    Returns
    -------
    tuple
        Figure and axes.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    drawing = canvas(height)
    return drawing, drawing.subplots()


def canvas(height: float) -> Any:
    """Return a figure without axes.

    Parameters
    ----------
    height : float
        In inches.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    checks.check_installed("The pictures of a report", ["matplotlib"], extra="bench")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing


def draw_curves(found: Mapping[str, Curves], title: str, metric: str = "score") -> Any:
    """Draw mean scores with bands of one deviation.

    Parameters
    ----------
    found : dict of str to Curves
        The curves.
    title : str
        Its heading.
    metric : str, default="score"
        What is scored.

    Returns
    -------
    matplotlib.figure.Figure
        The picture.
    """
    return _lines(lines_of(found), title, metric)


def draw_gain(found: Mapping[str, Curves], baseline: str, metric: str = "score") -> Any:
    """Draw mean scores less the baseline's, with one deviation of the baseline as a band (NTKCPL's figure 3).

    Parameters
    ----------
    found : dict of str to Curves
        The curves.
    baseline : str
        Which of them is zero.
    metric : str, default="score"
        What is scored.

    Returns
    -------
    matplotlib.figure.Figure
        The picture.
    """
    zero = found[baseline]
    lines: dict[str, Line] = {}
    for name, curve in found.items():
        ours, theirs = np.isin(curve.budgets, zero.budgets), np.isin(zero.budgets, curve.budgets)
        spread = np.nan_to_num(curve.deviation) if name == baseline else None
        lines[name] = (curve.budgets[ours], curve.mean[ours] - zero.mean[theirs], spread)
    return _lines(lines, f"Gain over {baseline}", f"{metric}, difference of means")


def draw_balance(counted: Mapping[str, Queried], pool: float) -> Any:
    """Draw how even the classes of the labels are.

    Parameters
    ----------
    counted : dict of str to Queried
        By strategy.
    pool : float
        The evenness of the whole pool.

    Returns
    -------
    matplotlib.figure.Figure
        The picture.
    """
    lines = {name: (found.budgets, found.evenness, None) for name, found in counted.items()}
    return _lines(lines, "How even the classes of the labels are", "entropy over that of equal classes", pool)


def lines_of(found: Mapping[str, Curves]) -> dict[str, Line]:
    """Return mean scores with one deviation, which a single seed does not have."""
    spreads = {name: curve.deviation if len(curve.seeds) > 1 else None for name, curve in found.items()}
    return {name: (curve.budgets, curve.mean, spreads[name]) for name, curve in found.items()}


def plot_lines(axes: Any, lines: Mapping[str, Line]) -> list[Any]:
    """Plot lines with their bands into axes, and return matplotlib's lines."""
    plotted: list[Any] = []
    looks = styles(list(lines))
    for name, (budgets, values, spread) in lines.items():
        plotted += axes.plot(budgets, values, label=name, **looks[name])
        if spread is not None:
            band = (values - spread, values + spread)
            axes.fill_between(budgets, *band, color=looks[name]["color"], alpha=0.15, linewidth=0)
    return plotted


def _lines(lines: Mapping[str, Line], title: str, ylabel: str, pool: float | None = None) -> Any:
    drawing, axes = figure(3.4 + 0.2 * len(lines))
    plot_lines(axes, lines)
    if pool is not None:
        axes.axhline(pool, color="0.4", linestyle=":", label="the whole pool")
    axes.set_xlabel("number of labels")
    axes.set_ylabel(ylabel, fontsize="small")
    # Names are shown as they are: a dollar sign in one is no formula.
    axes.set_title(title, parse_math=False, fontsize="medium")
    axes.grid(alpha=0.3)
    _legend(drawing, axes)
    return drawing


def _legend(drawing: Any, axes: Any) -> None:
    # Below the axes: names may be as long as the picture is wide.
    handles, labels = axes.get_legend_handles_labels()
    legend = drawing.legend(handles, labels, loc="outside lower left", fontsize="small", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def draw_ranks(ranks: Ranks) -> Any:
    """Draw average ranks, and which of them the critical difference cannot tell from the best.

    Parameters
    ----------
    ranks : Ranks
        As `rank_areas` returns them.

    Returns
    -------
    matplotlib.figure.Figure
        The picture, the best strategy on top.
    """
    order = np.argsort(ranks.average, kind="stable")
    drawing, axes = figure(1.2 + 0.36 * len(order))
    best = ranks.average[order[0]]
    far = max(len(order), best + ranks.critical_difference)
    axes.axvspan(best, best + ranks.critical_difference, color="0.9", label="not told from the best")
    looks = styles(ranks.strategies)
    for place, i in enumerate(order):
        name, rank = ranks.strategies[i], ranks.average[i]
        axes.plot(rank, place, **looks[name])
        # Inside, on the side with more room; a name that may be as long as the picture is wide begins at its edge.
        if len(name) > _SHORT:
            at: dict[str, Any] = {"xy": (0.02, place), "xycoords": ("axes fraction", "data")}
            at |= {"xytext": (0, -5), "ha": "left"}
        elif rank > (1 + far) / 2:
            at = {"xy": (rank, place), "xytext": (8, -5), "ha": "right"}
        else:
            at = {"xy": (rank, place), "xytext": (-4, -5), "ha": "left"}
        axes.annotate(name, va="top", fontsize="small", parse_math=False, textcoords="offset points", **at)
    axes.set_yticks([])
    axes.set_ylim(len(order) - 0.2, -0.5)
    axes.set_xlim(0.8, far + 0.2)
    axes.set_xlabel("average rank (1 is best)")
    _legend(drawing, axes)
    return drawing


def draw_images(rounds: Sequence[np.ndarray], captions: Sequence[str]) -> Any:
    """Draw images in rows, one for each round.

    Parameters
    ----------
    rounds : sequence of numpy.ndarray (b, channels, height, width)
        Images with one channel or three, values of any range.
    captions : sequence of str
        What stands left of each row.

    Returns
    -------
    matplotlib.figure.Figure
        The picture.
    """
    columns = max(len(images) for images in rounds)
    drawing = canvas(0.2 + 4.4 / columns * len(rounds))
    grid = drawing.subplots(len(rounds), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, images, caption in zip(grid, rounds, captions, strict=True):
        row[0].text(-0.15, 0.5, caption, transform=row[0].transAxes, ha="right", va="center", fontsize="small")
        for axes, image in zip(row, images, strict=False):
            axes.imshow(as_shown(image.transpose(1, 2, 0)), cmap="gray", vmin=0, vmax=1)
    return drawing


def as_shown(image: np.ndarray) -> np.ndarray:
    """Return an image as matplotlib takes it, scaled to [0, 1].

    Parameters
    ----------
    image : numpy.ndarray (height, width), (channels, height, width) or (height, width, channels)
        With one channel or three, values of any range.

    Returns
    -------
    numpy.ndarray (height, width) or (height, width, 3)
        The image.

    Raises
    ------
    InvalidInputError
        If it is none.
    """
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3):
        remedy = "Reshape rows to pictures first, such as X.reshape(-1, 28, 28)."
        raise checks.expected("images of one channel or three", f"samples of shape {image.shape}", remedy)
    low, high = float(image.min()), float(image.max())
    return (image - low) / (high - low or 1.0)


@dataclass
class Written:
    """The folder of a report, and what has been written there.

    Parameters
    ----------
    folder : Path
        Where pictures and tables go.
    files : list of Path
        Those that are there.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)

    def drop_former(self) -> None:
        """Delete what an earlier report wrote and this one did not."""
        for path in (path for name in _AT_TIMES for path in self.folder.glob(name) if path not in self.files):
            path.unlink()

    def picture(self, draw: Callable[[], Any], name: str, text: str, read: str) -> list[tuple[bytes, str, str]]:
        """Draw and write a picture; return it, its caption and what is read in it; nothing without matplotlib."""
        if not can_draw():
            return []
        self.files.append(self.folder / name)
        with replacing(self.files[-1]) as draft:
            draw().savefig(draft, dpi=150)
            return [(draft.read_bytes(), text, read)]

    def table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write a table."""
        self.files.append(self.folder / name)
        write_csv(self.files[-1], header, rows)
