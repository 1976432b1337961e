"""What README and pages show is run: sessions by doctest, commands and protocols here.

A page's ``bash`` and ``toml`` blocks are run from the top to the bottom in one temporary folder, made small by
`SMALLER`. The folder holds what a reader would have brought, `my_data.npz` and `my_study.py`, and the protocols of
examples/.
"""

import inspect
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from sklearn.datasets import load_digits

import modal_ntk
from modal_ntk import cli, host
from modal_ntk.bench import Protocol
from modal_ntk.errors import UnmetNeedError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if not {"_build", "auto_examples"} & set(path.relative_to(ROOT).parts)
]
OTHER_PAGES = [ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING")]
OTHER_PAGES += sorted((ROOT / "examples").glob("*/README.md"))
TEMPLATE = ROOT / "examples" / "plugin_template"
EXTRAS = {
    extra
    for folder in (ROOT, TEMPLATE)
    for extra in tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
}

# What replaces values that would take long: of options of the command line, and of keys of a protocol.
SMALLER = {"--seeds": "1", "--jobs": "1", "--cells": "1", "--rounds": "1", "--batch": "10"}
SMALL_STUDY = {"seeds": 1, "batch_size": 10, "n_rounds": 1, "pool_size": 200, "validation": 50}
# Options for machines that are not at hand: such a command is read, not run.
ELSEWHERE = {"--store", "--address", "--device", "ray", "dask"}
STUDY = """
from modal_ntk.bench import default_estimator


def make_net(data, lr=0.1):
    return default_estimator(data).set_params(lr=lr, max_epochs=3)
"""


BLOCK = re.compile(r"^( *)(```+|:::+)([^\n`]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """Return language and content of every fenced block; a directive's language is in braces."""
    found = BLOCK.findall(text)
    return [(language.strip(), content) for _, _, language, content in found]


def commands(content):
    """Return the commands of a block, each as a list of words; comments and continued lines are seen to."""
    lines = content.replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.split(r"&&|;", line.partition(" #")[0])]
    return [words for words in (shlex.split(part, comments=True) for part in parts) if words]


def pip_install(words):
    """``pip install`` names requirements, or a project of ours with extras that it has."""
    for word in (word for word in words[2:] if not word.startswith("-")):
        own = re.fullmatch(r"(?:\.|modal-ntk)(?:\[(.+)\])?", word)
        if own:
            assert set(filter(None, (own[1] or "").split(","))) <= EXTRAS, word
        elif not word.startswith("./"):
            Requirement(word)


def script(words):
    """``python`` runs a module, or a script that is there."""
    assert words[1].startswith("-") or (ROOT / words[1]).is_file(), words


def file_of_ours(words):
    assert (ROOT / words[1]).is_file(), words


# Commands that are only looked at: they install, test, or belong to the shell.
LOOKED_AT = {
    "pip": pip_install,
    "python": script,
    "bash": file_of_ours,
    **dict.fromkeys(["pytest", "cd", "source", "export", "git", "ruff", "mypy", "dask"], lambda _: None),
}


def smaller(words):
    """Return the arguments of ``modal-ntk`` with small values."""
    found = [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return [*found, "--rounds", "1"] if "--dataset" in found and "bench" in found and "--rounds" not in found else found


def run(words, folder):
    """Run a command of ours, or look at another."""
    name, environment = words[0], {}
    while "=" in name:  # settings before a command
        key, _, value = name.partition("=")
        environment[key] = value
        words = words[1:]
        name = words[0]
    if name != "modal-ntk":
        assert name in LOOKED_AT, f"{name} is not known to this test"
        return LOOKED_AT[name](words)
    if ELSEWHERE & set(words):
        return cli._parser().parse_args(words[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        for key, value in environment.items():
            patch.setenv(key, value)
        assert cli.main(smaller(words[1:])) == 0, words
    return None


def study(values, path):
    """Check a protocol and write it to a file, made small; of several parts, check each."""
    common = {key: value for key, value in values.items() if key != "parts"}
    for part in values.get("parts", {"": {}}).values():
        Protocol.from_dict({**common, **part})
    if "parts" in values:
        return
    small = {**values, **SMALL_STUDY, "strategies": values["strategies"][:2]}
    estimator = small.pop("estimator", None)
    lines = [f"{key} = {toml(value)}" for key, value in small.items()]
    if estimator:
        lines += ["[estimator]", *(f"{key} = {toml(value)}" for key, value in estimator.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def toml(value):
    """Write a value as TOML has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


@pytest.fixture
def folder(tmp_path):
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32) / 16
    parts = {"x_train": X[:200], "y_train": y[:200], "x_test": X[200:300], "y_test": y[200:300]}
    np.savez(tmp_path / "my_data.npz", **parts)
    (tmp_path / "my_study.py").write_text(STUDY, encoding="utf-8")
    digits = "examples/reproduce/digits.toml"  # the one of the repository's protocols that pages run
    study(tomllib.loads((ROOT / digits).read_text(encoding="utf-8")), tmp_path / digits)
    yield tmp_path
    sys.modules.pop("my_study", None)


def named(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_of_a_page_is_of_a_kind_that_is_run(page):
    """Blocks are sessions, commands, TOML, directives, or output as text; Python that is no session is not run."""
    for language, content in blocks(page.read_text(encoding="utf-8")):
        assert language in {"python", "bash", "toml", "text"} or language.startswith("{"), content
        assert language != "python" or content.lstrip().startswith(">>>"), content


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_protocols_of_a_page_run(page, folder, capsys):
    """From the top to the bottom, every command ends well and every protocol is one."""
    for language, content in blocks(page.read_text(encoding="utf-8")):
        if language == "toml":
            values = tomllib.loads(content)
            if "strategies" in values:
                study(values, folder / "study.toml")
        elif language == "bash":
            for words in commands(content):
                run(words, folder)
    assert "Traceback" not in capsys.readouterr().err


def is_made(target):
    """The build makes a gallery page of each script, and a page of each public name (test_fidelity.py)."""
    if target.parent == ROOT / "docs/auto_examples":
        return target.stem == "index" or (ROOT / f"examples/{target.stem}.py").is_file()
    return target.parent == ROOT / "docs/reference/generated"


def anchors(text):
    """Return the places that a page's headings make, as GitHub and the site name them."""
    headings = re.findall(r"^#+ +(.*)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(text):
    """Return a text without its blocks of code; directives stay."""
    return BLOCK.sub(lambda block: block[0] if block[3].startswith("{") else "", text)


def dead_links(page):
    """Return what a page names and is not there: files, pages of the site, headings, and files in backticks."""
    text = page.read_text(encoding="utf-8")
    prose = without_code(text)
    links = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: +(\S+)|(?:src|href)=\"([^\"]+)\"", prose, re.MULTILINE)
    links += re.findall(r"^(?:```|:::)\{(?:image|figure|include)\} (\S+)()()$", text, re.MULTILINE)
    documents = re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", prose)
    dead = [name for name in documents if not made_of(page.parent / name)]
    for link in ("".join(found) for found in links):
        path, _, place = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        places = anchors(target.read_text(encoding="utf-8")) if target.suffix == ".md" and target.is_file() else set()
        if not (target.exists() or is_made(target)) or (place and place not in places):
            dead.append(link)
    dead += [name for name in re.findall(NAMED_FILE, text) if not any([*ROOT.glob(name), *page.parent.glob(name)])]
    return dead


def made_of(document):
    """Say whether a page of the site has a source, or is made."""
    sources = [document.with_name(f"{document.name}{ending}").resolve() for ending in (".md", ".rst")]
    return any(source.is_file() or is_made(source) for source in sources)


NAMED_FILE = r"`((?:examples|modal_ntk|tests|docs(?!/_build))/[\w./*-]+)"


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=named)
def test_links_and_files_of_a_page_are_there(page):
    """Links lead to files, to headings, or to what the site's build makes; what code names under a folder is there."""
    assert dead_links(page) == []


def test_files_that_docstrings_name_are_there():
    """In the package and in the examples, too."""
    for path in [*(ROOT / "modal_ntk").rglob("*.py"), *(ROOT / "examples").glob("*.py")]:
        named_there = re.findall(NAMED_FILE, path.read_text(encoding="utf-8"))
        assert [name for name in named_there if not any(ROOT.glob(name))] == [], path


def test_a_dead_link_is_found(tmp_path):
    """Of every kind, and nothing that is code or another site's."""
    (tmp_path / "other.md").write_text("# One `two`, three\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md#one-two-three) [b](#here) [c](https://x.test/y#z) {doc}`other` {doc}`it <other>`\n"
        "[d](gone.md) [e](other.md#two) [f](#there) {doc}`gone` ![g](gone.png) `examples/gone.py`\n"
        "```{image} lost.png\n```\n```text\n[h](code.md)\n```\n[i]: lost.md\n",
        encoding="utf-8",
    )
    found = {"gone", "gone.md", "other.md#two", "#there", "gone.png", "examples/gone.py", "lost.png", "lost.md"}
    assert set(dead_links(page)) == found


def rows(page, heading):
    """Return the cells of the first table below a heading, without its head."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    table = re.search(r"^\|.*\n\|-.*\n((?:\|.*\n)+)", text, re.MULTILINE)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_readme_lists_every_strategy_with_its_class():
    """The table of README is what is registered."""
    registered = {name: found.spec.factory.__name__ for name, found in host.build_host().strategies.items()}
    assert {name.strip("`"): kind.strip("`") for name, kind, *_ in rows("README.md", "Strategies")} == registered


def test_every_built_in_has_an_extra_of_its_name():
    """Every strategy of the package can be installed by its name; DDAL's brings its neighbour search."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert set(project["entry-points"]["modal_ntk"]) <= set(extras)
    assert extras["ddal"] == ["modal-ntk[ann]"]


@pytest.mark.parametrize("name", sorted(host.build_host().strategies))
def test_those_that_need_features_at_most_start_without_labels(name):
    """As the page of decisions says: those that need nothing, or features alone, choose at once; the others refuse."""
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    if set(host.build_host().strategies[name].needs) <= {"features"}:
        assert len(host.get_strategy(name, random_state=0).select(None, X, 3).indices) == 3
    else:
        with pytest.raises(UnmetNeedError):
            host.get_strategy(name, random_state=0).select(None, X, 3)


@pytest.mark.parametrize("page", ["README.md", "docs/guides/choosing.md"])
def test_figures_of_a_page_stand_in_the_files_it_names(page):
    """Every number with a decimal point, below the commands, is in one of the results that the page names."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = text.partition("## Results")[2] or text
    files = set(re.findall(r"`(examples/reproduce/results/[\w./]+)`", text))
    held = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in files)
    known = set(re.findall(r"\d+\.\d+", held))
    figures = re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\()", text)
    assert figures
    assert not set(figures) - known


def test_every_page_of_the_site_is_looked_at():
    """The guides are among the pages, and doctest reads them all."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert {"README.md", "docs"} <= set(options["testpaths"])
    assert "--doctest-glob=*.md" in options["addopts"]
    assert len(PAGES) > 3


def test_a_block_that_cannot_be_run_is_found():
    """The test's own reading: languages, continued lines, settings before a command, unknown commands."""
    text = "```bash\nA=1 modal-ntk bench \\\n  --seeds 5 # five\n```\n\n  ```python\n  x = 1\n  ```\n"
    assert [language for language, _ in blocks(text)] == ["bash", "python"]
    assert commands(blocks(text)[0][1]) == [["A=1", "modal-ntk", "bench", "--seeds", "5"]]
    assert smaller(["bench", "--dataset", "digits", "--seeds", "5"])[-3:] == ["1", "--rounds", "1"]
    with pytest.raises(AssertionError, match="not known"):
        run(["rm", "-rf", "/"], None)


@pytest.mark.parametrize("page", sorted((ROOT / "docs/methods").glob("*.md")), ids=named)
def test_what_a_page_says_to_tune_are_parameters(page):
    """The first column of "Tune these first" names parameters of the class in its head."""
    text = page.read_text(encoding="utf-8").partition("\n## Tune these first\n")[2].partition("\n## ")[0]
    (kind,) = re.findall(r"^\| of `(\w+)` ", text, re.MULTILINE) or [None]
    named_there = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    if kind is None:
        assert page.stem in ("baselines", "coverage", "index")
        return
    assert named_there
    assert set(named_there) <= set(inspect.signature(getattr(modal_ntk, kind)).parameters)
