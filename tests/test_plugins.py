"""A good plugin among bad ones, all of them distributions on the path, in a process of their own."""

import json
import os
import subprocess
import sys

import pytest

GOOD = """
import numpy as np
from modal_ntk import QueryStrategy, Selection
from modal_ntk.hooks import StrategySpec, hookimpl

class LastRows(QueryStrategy):
    def __init__(self, *, random_state=None):
        self.random_state = random_state
    def _select(self, query):
        indices = np.arange(query.n_pool - query.n_instances, query.n_pool)
        return Selection(indices, np.zeros(query.n_instances))

@hookimpl
def modal_ntk_strategies():
    return [StrategySpec({name!r}, LastRows, "The last rows of the pool.")]
"""

BAD = {
    "broken": "def (:\n",
    "exiting": "import sys\nprint('{}')\nsys.exit(7)\n",
    "slow": "import time\ntime.sleep(2.1)\n" + GOOD.format(name="patient"),
    "duplicate": GOOD.format(name="entropy"),
    "signature": GOOD.format(name="x").replace("strategies()", "strategies(pool, budget)"),
    "old": "MODAL_NTK_API = 0\n" + GOOD.format(name="x"),
    "raising": GOOD.format(name="x").replace("return [", "raise RuntimeError('no licence')\n    return ["),
    "mistyped": GOOD.format(name="x").replace("return [", "return None and ["),
}

REASONS = {
    "broken": ("failed", "SyntaxError: invalid syntax"),
    "exiting": ("failed", "SystemExit: 7"),
    "slow": ("slow", "importing it took 2."),
    "duplicate": ("duplicate", "'entropy' is that of modal-ntk (entry point entropy) and is not replaced by"),
    "signature": ("failed", "PluginValidationError: Plugin 'signature' for hook 'modal_ntk_strategies'"),
    "old": ("failed", "written for version 0 of the plugin interface; this modal-ntk knows 1. Upgrade the plugin."),
    "raising": ("failed", "RuntimeError: no licence"),
    "mistyped": ("failed", "to return a list of StrategySpec records, got None"),
}


def install(site, name, source, entry_points=None):
    """Lay out a distribution as pip does."""
    (site / f"plugin_{name}.py").write_text(source)
    info = site / f"dist_{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.5\n")
    default = f"[modal_ntk]\n{name} = plugin_{name}\n"
    (info / "entry_points.txt").write_text(default if entry_points is None else entry_points)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    install(folder, "good", GOOD.format(name="good"))
    for name, source in BAD.items():
        install(folder, name, source)
    return folder


def python(site, *arguments, plugins="", status=0):
    environment = {**os.environ, "PYTHONPATH": str(site), "MODAL_NTK_PLUGINS": plugins}
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    return done.stdout


def command(site, *arguments, **options):
    code = "import sys; from modal_ntk.cli import main; sys.exit(main())"
    return python(site, "-c", code, *arguments, **options)


def test_the_bad_ones_are_explained_and_the_rest_is_there(site):
    """Each bad plugin is told by name, distribution, version and reason; good, slow and built-in ones are listed."""
    found = json.loads(command(site, "doctor", "--json", "--strict", status=1))
    states = {p["name"]: p for p in found["plugins"]}
    for name, (kind, reason) in REASONS.items():
        assert (states[name]["distribution"], states[name]["version"]) == (f"dist-{name}", "1.5")
        assert states[name]["state"] == kind
        assert reason in states[name]["detail"]
        assert any(f"Plugin '{name}' of dist-{name}" in problem for problem in found["problems"])
    assert {n for n, p in states.items() if p["state"] == "ok"} >= {"good", "patient", "entropy", "ntkcpl"}
    assert states["entropy"]["distribution"] == "modal-ntk"


def test_the_good_one_works_among_the_bad(site):
    """By name, through modAL's query, with every bad plugin but the slow one there; asking for a bad one explains."""
    code = """
import numpy as np, modal_ntk
from modAL.models import ActiveLearner
from sklearn.linear_model import LogisticRegression
X, y = np.arange(8.0)[:, None], np.array([0, 0, 0, 0, 1, 1, 1, 1])
learner = ActiveLearner(LogisticRegression(), modal_ntk.get_strategy("good"), X, y)
print(learner.query(X, n_instances=3)[0].tolist())
try:
    modal_ntk.get_strategy("raising")
except modal_ntk.errors.PluginError as error:
    print(error)
"""
    lines = python(site, "-c", code, plugins="-slow").splitlines()
    assert "[5, 6, 7]" in lines
    assert "Plugin 'raising' of dist-raising could not be loaded: RuntimeError: no licence" in lines


def test_denying_the_bad_ones_leaves_nothing_wrong(site):
    """With every bad plugin on the deny list strict mode passes, and the denied are shown as disabled."""
    code = "import json; from modal_ntk.host import build_host; h = build_host(strict=True); print(json.dumps("
    code += "[sorted(h.strategies), sorted(o.name for o in h.disabled)]))"
    strategies, disabled = json.loads(python(site, "-c", code, plugins=",".join(f"-{name}" for name in BAD)))
    assert set(strategies) >= {"good", "entropy"}
    assert disabled == sorted(BAD)


def test_of_two_plugins_the_first_by_distribution_keeps_the_name(tmp_path):
    """Whichever way the folder is read, dist-a keeps the name that dist-b claims too."""
    for name in "ba":
        install(tmp_path, name, GOOD.format(name="shared"))
    listing = json.loads(command(tmp_path, "strategies", "--json"))
    assert {s["distribution"] for s in listing["strategies"] if s["name"] == "shared"} == {"dist-a"}
    assert [(f["name"], f["distribution"], f["kind"]) for f in listing["failures"]] == [("b", "dist-b", "duplicate")]


def test_a_distribution_seen_twice_on_the_path_counts_once(tmp_path):
    """As for imports the first on the path wins, with all it has: what only an older copy behind it names is gone."""
    sites = [tmp_path / "new", tmp_path / "old"]
    for folder in sites:
        folder.mkdir()
        install(folder, "kept", GOOD.format(name="kept"))
    entry_points = "[modal_ntk]\nkept = plugin_kept\nremoved = plugin_removed\n"
    (sites[1] / "dist_kept-1.5.dist-info" / "entry_points.txt").write_text(entry_points)
    listing = json.loads(command(os.pathsep.join(map(str, sites)), "strategies", "--json"))
    assert [s["name"] for s in listing["strategies"] if s["distribution"] == "dist-kept"] == ["kept"]
    assert "removed" not in {f["name"] for f in listing["failures"]}


def test_damaged_metadata_are_told_where_they_are_ours(tmp_path):
    """Entry points that cannot be read, and metadata without a name, do not end the listing (torch they do)."""
    install(tmp_path, "good", GOOD.format(name="good"))
    install(tmp_path, "damaged", "", "[modal_ntk]\nno equals sign\n")
    install(tmp_path, "foreign", "", "[console_scripts]\nno equals sign\n")
    install(tmp_path, "headless", "def (:")
    (tmp_path / "dist_headless-1.5.dist-info" / "METADATA").unlink()
    listing = json.loads(command(tmp_path, "strategies", "--json"))
    assert {"good", "entropy"} <= {s["name"] for s in listing["strategies"]}
    failed = {f["distribution"]: f["reason"] for f in listing["failures"]}
    assert set(failed) == {"dist-damaged", "an unknown distribution"}, failed
    assert failed["an unknown distribution"].startswith("SyntaxError")


def lay_out(site, name, entry_points):
    """Put down metadata that call themselves this library's."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: modal-ntk\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[modal_ntk]\n" + entry_points)


@pytest.mark.parametrize(
    "entry_points",
    ["zz = plugin_zz\n", "entropy = plugin_zz\n", "entropy = modal_ntk.strategies.baselines.scores.margin\n"],
)
def test_a_distribution_of_our_name_is_told(tmp_path, entry_points):
    """Whoever calls a distribution modal-ntk hides no built-in strategy without a word, and brings none of its own."""
    lay_out(tmp_path, "own", entry_points)
    (tmp_path / "plugin_zz.py").write_text(GOOD.format(name="zz_strategy"))
    listing = json.loads(command(tmp_path, "strategies", "--json"))
    (failure,) = listing["failures"]
    assert failure["distribution"] == "modal-ntk"
    assert "another distribution has the name of this library" in failure["reason"]
    names = {s["name"] for s in listing["strategies"]}
    assert "zz_strategy" not in names
    if "modal_ntk." not in entry_points:
        assert {"entropy", "ntkcpl"} <= names
        assert str(tmp_path) in failure["reason"]


def test_the_library_on_the_path_twice_is_no_impostor(tmp_path):
    """A second look at the same installation, or a part of it, is nothing to tell."""
    lay_out(tmp_path, "own", "entropy = modal_ntk.strategies.baselines.scores.entropy\n")
    both = os.pathsep.join([str(path) for path in sys.path if path] + [str(tmp_path)])
    assert json.loads(command(both, "strategies", "--json"))["failures"] == []
