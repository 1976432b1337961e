"""The tables of growth in the guide to scaling are what their script prints."""

import growth_page
import pytest


@pytest.mark.parametrize("name", growth_page.MARKS)
def test_the_page_holds_what_was_measured(name):
    """Seconds, memory, exponents and the estimate's error; `growth_page.py --write` brings the page up."""
    begin, end = growth_page.MARKS[name]
    assert growth_page.PAGE.read_text(encoding="utf-8").split(begin)[1].split(end)[0] == growth_page.tables()[name]
