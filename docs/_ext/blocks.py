"""Code blocks without the empty line that ends a doctest in the source."""

from __future__ import annotations

from typing import Any

from docutils import nodes


def without_last_lines(_app: Any, doctree: nodes.document) -> None:
    """Drop the empty lines at the end of every literal block."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext()
        if text != text.rstrip():
            # Highlighting takes a block whose source and text agree for code.
            was_code = block.rawsource == text
            block.children = [nodes.Text(text.rstrip())]
            block.rawsource = text.rstrip() if was_code else block.rawsource


def setup(app: Any) -> dict[str, Any]:
    """Register the step."""
    app.connect("doctree-read", without_last_lines)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
