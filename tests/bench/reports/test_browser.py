"""A report in a real browser: nothing to complain about, and nothing wider than a phone."""

import re

import browser
import numpy as np
import pytest

from modal_ntk.bench import report, report_across
from modal_ntk.bench.loop.rounds import Round
from modal_ntk.bench.storage.store import Store

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())

LONG = "ntkcpl:max_clusters=100,variant=self,feature_scaling=center_l2"


def stored(folder, dataset):
    """A comparison with long names and many numbers of labels."""
    rng = np.random.default_rng(0)
    store = Store(folder)
    store.agree({"dataset": dataset, "estimator": "LogisticRegression()", "batch_sizes": [10] * 12})
    for strategy in (LONG, "random_sampling", "margin"):
        for seed in range(3):
            scores = 0.5 + 0.03 * np.arange(12) + 0.05 * rng.random(12)
            chosen = np.arange(120).reshape(12, 10)
            curve = [Round(10 * (i + 1), float(scores[i]), 0.01, 75.0, chosen[i]) for i in range(12)]
            store.add(strategy, seed, curve)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with all pictures."""
    return report(stored(tmp_path_factory.mktemp("store"), "a_data_set_of_a_long_name")).page.as_uri()


def test_the_page_of_several_data_sets_fits_a_phone(tmp_path):
    """It is as quiet, as narrow and as well described as that of one."""
    report_across([stored(tmp_path / name, f"a_data_set_called_{name}") for name in ("one", "two", "three")], tmp_path)
    with browser.browser(400) as window:
        window.open((tmp_path / "across.html").as_uri())
        assert window.run("return document.documentElement.scrollWidth") <= 400
        assert window.complaints() == []
        assert window.run("return [...document.images].map(i => i.naturalWidth > 0 && i.alt.length > 20)") == [True]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits_and_is_quiet(page, width, dark):
    """No error on the console, no page wider than the window, a text for every picture, and ink that is read."""
    with browser.browser(width, dark=dark) as window:
        window.open(page)
        assert window.run("return document.documentElement.scrollWidth") <= width
        assert window.run("return window.innerWidth") == width
        assert window.complaints() == []
        assert window.run("return document.images.length") >= 3
        assert window.run("return [...document.images].every(i => i.complete && i.naturalWidth && i.alt.length > 20)")
        ink, paper = (
            window.run(f"return getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
        )
        assert contrast(ink, paper) > 7


def contrast(first, second):
    """Return the ratio of luminances that WCAG asks for."""

    def luminance(colour):
        parts = np.array([int(x) for x in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_wide_tables_scroll_within_themselves(page):
    """On a phone a table that is cut shows a shadow, can be scrolled by keys, and its names stay in sight."""
    with browser.browser(400) as window:
        window.open(page)
        wide = "const cut = [...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth);"
        assert window.run(f"{wide} return cut.length") >= 2
        assert window.run(f"{wide} return cut.every(e => e.tabIndex === 0)")
        assert window.run(f"{wide} return cut.every(e => getComputedStyle(e).backgroundImage.includes('gradient'))")
        moved = "cut[0].scrollLeft = 200; const t = cut[0].querySelector('tbody th').getBoundingClientRect();"
        assert window.run(f"{wide} {moved} return Math.abs(t.left - cut[0].getBoundingClientRect().left) < 3")


def test_a_table_is_taken_by_one_click(page):
    """What is to be copied is selected as a whole."""
    with browser.browser(1280) as window:
        window.open(page)
        assert window.run("return [...document.querySelectorAll('summary')].map(s => s.textContent)") == [
            "Copy as LaTeX",
            "Copy as Markdown",
        ]
        style = "getComputedStyle(pre).userSelect === 'all'"
        assert window.run(f"return [...document.querySelectorAll('pre')].every(pre => {style})")
