"""The table of families and routes in the guide to kernels is what its script prints."""

from __future__ import annotations

import families
import pytest
import table_routes


def rows_of_the_page():
    text = table_routes.PAGE.read_text(encoding="utf-8")
    table = text.split(table_routes.BEGIN)[1].split(table_routes.END)[0]
    return {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_row_of_the_guide_is_what_the_script_prints(family):
    """Modules, parameters by route, proof and refusals of a family; `table_routes.py --write` brings the page up."""
    assert rows_of_the_page()[family] == table_routes.row(family, families.FAMILIES[family])


def test_the_guide_has_no_other_rows():
    """Families come and go in the page with those of the tests."""
    assert list(rows_of_the_page()) == list(families.FAMILIES)
