"""One HTML page that needs nothing from elsewhere; whatever is put into it is escaped."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2328; --soft: #5b6770; --line: #d9dfe3; --deep: 0 114 178; --paper: #fff;
  --doubt: #fff6e0; --shade: rgb(0 0 0 / .22); }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8eb; --soft: #a3afb7; --line: #3a444b; --deep: 86 180 233;
  --paper: #14191c; --doubt: #33290f; --shade: rgb(0 0 0 / .75); } img { background: #fff; border-radius: .3rem; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p, ul { max-width: 46rem; }
.note { color: var(--soft); font-size: .9rem; }
.doubts { background: var(--doubt); border-left: .3rem solid #e69f00; padding: .4rem 1rem; max-width: 46rem; }
.doubts ul { padding-left: 1.1rem; margin: .3rem 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
figure { margin: 0; } img { width: 100%; max-width: 40rem; height: auto; display: block; }
figcaption { font-size: .9rem; color: var(--soft); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .3rem; max-width: max-content;
  background: linear-gradient(to left, var(--paper) 40%, transparent) right / 2.5rem 100% no-repeat local,
    linear-gradient(to left, var(--shade), transparent) right / 1rem 100% no-repeat scroll, var(--paper); }
.wide:focus-visible { outline: 2px solid rgb(var(--deep)); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
.pictures + .note, .note + .wide { margin-top: .4rem; } .wide + .pictures { margin-top: 1rem; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
th { font-weight: 600; } tbody th, th:first-child { text-align: left; }
tbody th { position: sticky; left: 0; background: var(--paper); white-space: normal; min-width: 7rem; max-width: 18rem;
  font-weight: 500; }
td.heat { background: rgb(var(--deep) / calc(var(--share) * .55)); text-align: center; }
details { margin: .5rem 0; font-size: .9rem; } summary { cursor: pointer; color: var(--soft); }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: .3rem; padding: .5rem .7rem; user-select: all;
  -webkit-user-select: all; overflow-wrap: normal; max-width: 100%; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; max-width: 60rem; }
dt { color: var(--soft); } dd { margin: 0; }
@media (max-width: 40rem) { body { padding: .7rem; } h1 { font-size: 1.3rem; }
  th, td { padding: .3rem .45rem; font-size: .82rem; } tbody th { min-width: 8.6rem; max-width: 10rem; }
  dl { grid-template-columns: 1fr; } dd { margin: 0 0 .4rem .8rem; } }
"""

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
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
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
