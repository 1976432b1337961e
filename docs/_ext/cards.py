"""What a gallery's card is about, in sight: sphinx-gallery shows it only under a mouse."""

from __future__ import annotations

import re
from html import escape, unescape
from typing import Any

from docutils import nodes

_HINT = re.compile(r' tooltip="([^"]*)"')
_TITLE = re.compile(r'<div class="sphx-glr-thumbnail-title">.*?</div>')


def described(_app: Any, doctree: nodes.document) -> None:
    """Move the hint of every card below its title."""
    hint = ""
    for raw in list(doctree.findall(nodes.raw)):
        html = raw.astext()
        if found := _HINT.search(html):
            hint, html = unescape(found[1]), _HINT.sub("", html)
        if title := _TITLE.search(html):
            text = f'\n<div class="card-text">{escape(hint)}</div>'
            html = html[: title.end()] + text + html[title.end() :]
        raw.children = [nodes.Text(html)]
        raw.rawsource = html


def setup(app: Any) -> dict[str, Any]:
    """Register the step."""
    app.connect("doctree-read", described)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
