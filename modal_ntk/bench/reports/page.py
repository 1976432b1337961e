"""One HTML page that needs nothing from elsewhere; whatever is put into it is escaped."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")

# The page may load nothing: a name that slipped through could not fetch or run anything either.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Share:
    """A table cell between 0 and 1 that is coloured by its value.

    Parameters
    ----------
    value : float
        The share; NaN for a cell that means nothing.
    """

    value: float


Cell = str | float | Share
Row = Sequence[Cell]


def page(title: str, sections: Sequence[str]) -> str:
    """Return a whole page.

    Parameters
    ----------
    title : str
        Its heading.
    sections : sequence of str
        HTML, from the functions here.

    Returns
    -------
    str
        HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """Return a section with a heading.

    Parameters
    ----------
    heading : str
        Text.
    *parts : str
        HTML.

    Returns
    -------
    str
        HTML.
    """
    return f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(parts) + "\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph.

    Parameters
    ----------
    text : str
        Text.
    kind : str, default=""
        Class of the style sheet.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> paragraph("a < b")
    '<p>a &lt; b</p>'
    """
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def listing(heading: str, sentences: Sequence[str]) -> str:
    """Return a box with sentences.

    Parameters
    ----------
    heading : str
        What they are.
    sentences : sequence of str
        Text.

    Returns
    -------
    str
        HTML; nothing without sentences.
    """
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="doubts"><strong>{escape(heading)}</strong><ul>{items}</ul></div>'


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """Return terms with what they are.

    Parameters
    ----------
    pairs : sequence of (str, str)
        Text.

    Returns
    -------
    str
        HTML.
    """
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in pairs) + "</dl>"


def table(header: Sequence[str], rows: Sequence[Row], caption: str) -> str:
    """Return a table that scrolls within itself where it is wider than the screen.

    Parameters
    ----------
    header : sequence of str
        Columns.
    rows : sequence of sequences
        The first cell of each heads its row; numbers get four digits, and a dash for NaN.
    caption : str
        What it shows.

    Returns
    -------
    str
        HTML.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{_row(row)}</tr>\n" for row in rows)
    return (
        f'<p class="note">{escape(caption)}</p><div class="wide" tabindex="0"><table aria-label="{escape(caption)}">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def shares(corner: str, names: Sequence[str], matrix: Sequence[Sequence[float]], caption: str) -> str:
    """Return a table of strategies against strategies, whose columns have the numbers of the rows.

    Parameters
    ----------
    corner : str
        Says what the row does to the column.
    names : sequence of str (k,)
        The strategies.
    matrix : sequence of sequences of float (k, k)
        Shares between 0 and 1; NaN for a cell that means nothing.
    caption : str
        What it shows.

    Returns
    -------
    str
        HTML.
    """
    numbers = [str(i) for i in range(1, len(names) + 1)]
    by_name = zip(numbers, names, matrix, strict=True)
    rows: list[Row] = [[f"{number}. {name}", *map(Share, row)] for number, name, row in by_name]
    return table([corner, *numbers], rows, caption)


def _row(cells: Row) -> str:
    first, *others = cells
    return f'<th scope="row">{_breakable(str(first))}</th>' + "".join(map(_cell, others))


def _breakable(name: str) -> str:
    # The name of a strategy may break between its parameters rather than anywhere.
    return re.sub(r"([:,=])", r"\1<wbr>", escape(name, quote=False))


def _cell(value: Cell) -> str:
    if isinstance(value, Share):
        if math.isnan(value.value):
            return '<td class="heat" style="--share: 0">-</td>'
        return f'<td class="heat" style="--share: {value.value:.3f}">{value.value:.2f}</td>'
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f"<td>{'-' if math.isnan(value) else f'{value:.4g}'}</td>"


def to_copy(texts: Sequence[tuple[str, str]]) -> str:
    """Return texts to be copied, each selected as a whole by one click, hidden until asked for.

    Parameters
    ----------
    texts : sequence of (str, str)
        Headings, such as the names of formats, and texts.

    Returns
    -------
    str
        HTML.
    """
    parts = (
        f"<details><summary>Copy as {escape(kind)}</summary><pre>{escape(text)}</pre></details>" for kind, text in texts
    )
    return "".join(parts)


def pictures(drawn: Sequence[tuple[bytes, str, str]]) -> str:
    """Return pictures beside or below one another, as the screen is wide.

    Parameters
    ----------
    drawn : sequence of (bytes, str, str)
        PNG files, what they show, and what is read in them, for those who do not see them.

    Returns
    -------
    str
        HTML with the files in it.
    """
    figures = (
        f'<figure><img alt="{escape(read)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for png, text, read in drawn
    )
    return f'<div class="pictures">{"".join(figures)}</div>'
