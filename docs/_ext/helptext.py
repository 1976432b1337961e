"""The help of every command, as the command line prints it."""

from __future__ import annotations

import os
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from modal_ntk import cli


class HelpText(Directive):
    """Show what ``modal-ntk COMMAND --help`` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the text as a block."""
        os.environ |= {"COLUMNS": "80", "NO_COLOR": "1"}
        actions = cli._parser()._subparsers._group_actions  # type: ignore[union-attr]
        command = actions[0].choices[self.arguments[0]]  # type: ignore[index,call-overload]
        text = command.format_help()
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("help-text", HelpText)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
