"""The site as it was built last: links lead somewhere, and pages fit a phone. Skipped where it was not built."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser
import pytest

SITE = Path(__file__).parents[2] / "docs/_build/html"
PAGES = sorted(page for page in SITE.rglob("*.html") if "_static" not in page.parts)

pytestmark = pytest.mark.skipif(not PAGES, reason="the site is not built: python -m sphinx docs docs/_build/html")


@cache
def anchors(page):
    return set(re.findall(r'\s(?:id|name)="([^"]+)"', page.read_text(encoding="utf-8")))


def test_every_local_link_leads_to_a_page_and_a_place_on_it():
    """Links to other sites are not followed: that would take a network."""
    dead = []
    for page in PAGES:
        for link in re.findall(r'\s(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            place = unquote(parts.fragment)
            if not target.is_file() or (place and target.suffix == ".html" and place not in anchors(target)):
                dead.append(f"{page.relative_to(SITE)}: {link}")
    assert sorted(set(dead)) == []


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
def test_pages_fit_a_phone_and_are_quiet():
    """At 400 pixels only tables, formulas and code scroll, within themselves; the console tells of no error."""
    wide, loud = [], []
    with browser.browser(400) as window:
        for page in PAGES:
            name = str(page.relative_to(SITE))
            if name.startswith(("index", "start", "guides", "methods")):
                window.open(page.as_uri())
                if window.run("return document.documentElement.scrollWidth") > 400:
                    wide.append(name)
                loud += [f"{name}: {text}" for text in window.complaints(least="SEVERE")]
    assert wide == []
    assert loud == []


def test_every_card_of_the_gallery_is_described_and_has_a_picture_of_its_own():
    """What a card shows is said in sight, not only under a mouse."""
    gallery = SITE / "auto_examples/index.html"
    cards = gallery.read_text(encoding="utf-8").split('<div class="sphx-glr-thumbcontainer"')[1:]
    assert len(cards) == len(list((SITE.parents[2] / "examples").glob("*.py")))
    for card in cards:
        assert len(re.search(r'<div class="card-text">([^<]+)</div>', card)[1]) > 40
        assert "tooltip" not in card.partition(">")[0]
    pictures = {(gallery.parent / re.search(r'src="([^"]+)"', card)[1]).read_bytes() for card in cards}
    assert len(pictures) == len(cards)


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
def test_on_a_phone_nothing_lies_on_code_and_cut_tables_show_it():
    """The button that copies stands above the first line; no row hides the shadow where a table is cut."""
    with browser.browser(400) as window:
        for name in ("index", "start", "guides/kernels"):
            window.open((SITE / f"{name}.html").as_uri())
            gaps = window.run("""return [...document.querySelectorAll("button.copy-code")].map(button => {
                const code = button.parentElement.querySelector("pre");
                const first = code.getBoundingClientRect().top + parseFloat(getComputedStyle(code).paddingTop);
                return first - button.getBoundingClientRect().bottom;
            })""")
            assert gaps
            assert min(gaps) >= 0
        rows = "[...document.querySelectorAll('article table :is(tr, th, td)')]"
        clear = f"{rows}.every(row => getComputedStyle(row).backgroundColor === 'rgba(0, 0, 0, 0)')"
        assert window.run(f"return {rows}.length > 5 && {clear}")


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
def test_code_is_copied_without_prompts_and_output():
    """What the button of a session holds is a program that compiles, with nothing that was printed."""
    with browser.browser(1280) as window:
        for page in [SITE / "index.html", *sorted((SITE / "guides").glob("*.html"))]:
            window.open(page.as_uri())
            held = window.run("return [...document.querySelectorAll('.highlight-python button.copy-code')]"
                              ".map(button => button.dataset.code)")  # fmt: skip
            for code in held:
                assert not re.search(r"^(>>>|\.\.\.)", code, re.MULTILINE)
                compile(code, str(page), "exec")
