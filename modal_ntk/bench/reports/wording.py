"""How a report writes what a store holds: seconds and sizes in units, estimators as a person writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from itertools import groupby, pairwise
from typing import Any

from sklearn.base import ClassifierMixin

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def seconds(value: float) -> str:
    """Return a time in the unit that suits it.

    Parameters
    ----------
    value : float
        Seconds.

    Returns
    -------
    str
        A dash for NaN.

    Examples
    --------
    >>> [seconds(x) for x in (0.0004, 0.0213, 3.14159, 75.0, 7500.0)]
    ['0.4 ms', '21 ms', '3.1 s', '1 min 15 s', '2 h 5 min']
    """
    if math.isnan(value):
        return "-"
    if value < 1:
        return f"{1000 * value:.0f} ms" if value >= 0.001 or value == 0 else f"{1000 * value:.1g} ms"
    if value < 59.5:
        return f"{value:.1f} s"
    (size, unit), (part, below) = next(pair for pair in pairwise(_UNITS) if value >= pair[0][0] * 0.99)
    whole, rest = divmod(round(value / part), size // part)
    return f"{whole} {unit}" + (f" {rest} {below}" if rest else "")


def spread(mean: float, deviation: float) -> str:
    """Return a mean and its deviation, which a single seed does not have: then it is NaN."""
    return f"{mean:.4f}" if math.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"


def percent(share: float) -> str:
    """Return a share in percent; a dash for NaN."""
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def span(counts: Collection[int]) -> str:
    """Return the least and the largest of some counts, once where they are the same."""
    return "-".join(map(str, sorted({min(counts), max(counts)})))


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Return a table as text for a terminal: columns two spaces apart, each aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in cells)


def size(n_bytes: float) -> str:
    """Return a size of memory in the unit that suits it.

    Parameters
    ----------
    n_bytes : float
        Bytes.

    Returns
    -------
    str
        With a unit.

    Examples
    --------
    >>> size(25276514304), size(512)
    ('23.5 GiB', '512 B')
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(len(units) - 1, max(0, int(math.log(max(1.0, n_bytes), 1024))))
    return f"{n_bytes / 1024**power:.{0 if power == 0 else 1}f} {units[power]}"


def estimator(written: str) -> str:
    """Return an estimator as a person would write it.

    Parameters
    ----------
    written : str
        Its ``repr``: of skorch's nets with classes by their whole path.

    Returns
    -------
    str
        On one line.

    Examples
    --------
    >>> estimator("<class 'skorch.classifier.NeuralNetClassifier'>[uninitialized]( module=<class 'mine.Net'>, )")
    'NeuralNetClassifier(module=Net)'
    """
    short = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", " ".join(written.split()))
    short = re.sub(r"\[(?:un)?initialized\]", "", short)
    return re.sub(r",?\s*\)", ")", re.sub(r"\(\s+", "(", short))


def entry(key: str, value: Any) -> str:
    """Return an entry of a protocol or a manifest as text.

    Parameters
    ----------
    key : str
        Its name, by which its unit is known.
    value : object
        What JSON holds.

    Returns
    -------
    str
        On one line, but for what strings hold.

    Examples
    --------
    >>> entry("memory", 2**30), entry("batch_sizes", [20, 20, 20]), entry("metrics", [])
    ('1.0 GiB', '20 (3 times)', 'none')
    """
    if key == "memory" and isinstance(value, (int, float)):
        return size(value)
    if key == "estimator" and isinstance(value, str):
        return estimator(value)
    if isinstance(value, (Mapping, list)) and not value:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{word(name)} {entry(name, inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_run(part, len(list(same))) for part, same in groupby(value))
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)


def _run(value: Any, times: int) -> str:
    return entry("", value) + (f" ({times} times)" if times > 1 else "")


def word(key: object) -> str:
    """Return a key of a protocol or a manifest as words."""
    return str(key).replace("_", " ")


def metric(protocol: Mapping[str, Any]) -> str:
    """Return the name of what is scored.

    Parameters
    ----------
    protocol : dict
        Of a store.

    Returns
    -------
    str
        "accuracy" for classifiers of skorch and scikit-learn, whose own score that is; else "score".

    Examples
    --------
    >>> metric({"estimator": "LogisticRegression()"}), metric({"estimator": "MyModel()"})
    ('accuracy', 'score')
    """
    name = re.match(r"\w+", estimator(str(protocol.get("estimator", ""))))
    return "accuracy" if name is not None and _scores_accuracy(name.group()) else "score"


_KINDS = ("linear_model", "ensemble", "neighbors", "svm", "tree", "naive_bayes", "neural_network")
_CLASSIFIERS = ("skorch", "sklearn.discriminant_analysis", *(f"sklearn.{kind}" for kind in _KINDS))


def _scores_accuracy(name: str) -> bool:
    kinds = (getattr(import_module(place), name, None) for place in _CLASSIFIERS)
    return any(getattr(kind, "score", None) is ClassifierMixin.score for kind in kinds)


def latex(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    r"""Return a table for a paper, in LaTeX with the rules of booktabs.

    Parameters
    ----------
    header : sequence of str
        Columns.
    rows : sequence of sequence of str
        Cells.
    caption : str
        What it shows.

    Returns
    -------
    str
        A ``table`` environment.

    Examples
    --------
    >>> print(latex(["name", "area"], [["a_b", "0.5 ± 0.1"]], "Areas."))
    \begin{table}
    \caption{Areas.}
    \begin{tabular}{lr}
    \toprule
    name & area \\
    \midrule
    a\_b & $0.5 \pm 0.1$ \\
    \bottomrule
    \end{tabular}
    \end{table}
    """
    lines = [" & ".join(map(_latex, row)) + r" \\" for row in (header, *rows)]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    columns = "l" + "r" * (len(header) - 1)
    return (
        f"\\begin{{table}}\n\\caption{{{_latex(caption)}}}\n\\begin{{tabular}}{{{columns}}}\n{body}\n"
        "\\end{tabular}\n\\end{table}"
    )


_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
}  # fmt: skip


def _latex(text: str) -> str:
    if number := re.fullmatch(r"([\d.]+) ± ([\d.]+)", text):
        return rf"${number[1]} \pm {number[2]}$"
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Return a table in Markdown.

    Parameters
    ----------
    header : sequence of str
        Columns.
    rows : sequence of sequence of str
        Cells.

    Returns
    -------
    str
        One line a row.

    Examples
    --------
    >>> print(markdown(["name", "area"], [["a|b", "0.5"]]))
    | name | area |
    | :--- | ---: |
    | a\|b | 0.5 |
    """
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in (header, *rows)]
    rule = "| :--- |" + " ---: |" * (len(header) - 1)
    return "\n".join([lines[0], rule, *lines[1:]])
