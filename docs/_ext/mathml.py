"""Formulas as MathML, written when the pages are built: they need neither a script nor a network to be shown."""

from __future__ import annotations

from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging


def converted(node: nodes.Element, *, as_block: bool) -> str:
    """Return a formula as MathML; what cannot be converted is a warning, and shown as it is written."""
    latex = node.astext()
    try:
        return tex2mathml(latex, as_block=as_block)
    # The error's own class has moved between releases of docutils.
    except Exception as error:  # noqa: BLE001
        logging.getLogger(__name__).warning("formula %r: %s", latex, error, location=node)
        return f"<code>{escape(latex)}</code>"


def inline(writer: Any, node: nodes.math) -> None:
    """Write a formula within a sentence."""
    writer.body.append(converted(node, as_block=False))
    raise nodes.SkipNode


def displayed(writer: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own, which scrolls where the page is narrow."""
    anchor = f' id="{escape(node["ids"][0])}"' if node["ids"] else ""
    formula = converted(node, as_block=True)
    writer.body.append(f'<div class="formula" tabindex="0"{anchor}>{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer under the name that ``html_math_renderer`` asks for."""
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
