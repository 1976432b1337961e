"""The table of families, routes and proof in docs/guides/kernels.md: printed, or written with ``--write``.

``tests/docs/test_routes_table.py`` holds the page in step. Run as ``python tests/docs/table_routes.py`` with
``PYTHONPATH=tests/shared:tests/oracles``.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from pathlib import Path

import families
import torch
from oracles_samples import gram, relative_error

from modal_ntk.errors import InvalidInputError
from modal_ntk.kernels import empirical_ntk

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "kernels.md"
BEGIN, END = "<!-- routes: begin -->\n", "<!-- routes: end -->"


def row(family, modules):
    """One line: how many modules, how many parameters by each route, what is refused, the largest error."""
    routes, refused, error = Counter(), [], 0.0
    for name, make in modules.items():
        torch.manual_seed(0)
        module, x = make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                kernel, info = empirical_ntk(module, x, dtype=torch.float64, return_info=True)
            except InvalidInputError:
                refused.append(name)
                continue
            error = max(error, relative_error(kernel, gram(module, x)))
        routes.update(info["routes"].values())
    counts = [str(routes[route]) for route in ("factored", "torch.func", "loop", "none")]
    proved = "all" if error < 1e-10 else f"error {error:.0e}"
    return f"| {family} | {len(modules)} | {' | '.join(counts)} | {proved} | {', '.join(refused) or 'none'} |"


def table():
    """The whole table, as Markdown."""
    lines = [
        "| family | modules | factored | torch.func | loop | none | proved | refused |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(row(*found) for found in families.FAMILIES.items())]) + "\n"


def main() -> None:
    """Print the table, or put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    text = table()
    if not parser.parse_args().write:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + text + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
