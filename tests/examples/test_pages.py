"""Pages of results are what their rows say."""

import shutil

import pytest
from scripts import REPRODUCE, imported


@pytest.fixture
def pages(monkeypatch):
    return imported("pages", monkeypatch)


def test_every_table_follows_from_the_rows_beside_it(pages, tmp_path):
    """Made again from its rows no page changes; made from others it does, and its words stay."""
    results = tmp_path / "results"
    shutil.copytree(REPRODUCE / "results", results, ignore=shutil.ignore_patterns("*.png"))
    before = {path: path.read_text() for path in results.rglob("*.md")}
    pages.main(results)
    assert {path: path.read_text() for path in results.rglob("*.md")} == before
    rows = results / "small_queries/small_queries.jsonl"
    rows.write_text("".join(line for line in rows.read_text().splitlines(keepends=True) if '"seed": 4' not in line))
    pages.main(results)
    changed = {path.name for path, text in before.items() if path.read_text() != text}
    assert changed == {"small_queries.md"}
    page = results / "small_queries.md"
    assert page.read_text().splitlines()[:12] == before[page].splitlines()[:12]


def test_a_mark_without_a_table_is_refused(pages):
    """A page and the list of tables must name the same."""
    text = "words\n<!-- table: one -->\nold\n<!-- end -->\nmore\n"
    assert pages.fill(text, {"one": lambda: ["| new |"]}) == (
        "words\n<!-- table: one -->\n\n| new |\n\n<!-- end -->\nmore\n"
    )
    for made in ({}, {"one": list, "two": list}):
        with pytest.raises(SystemExit, match="expected the tables"):
            pages.fill(text, made)
