"""The plugin host: every plugin through one door, none can take the others along."""

import itertools
import re
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint

import pytest
from fake_plugins import GOOD, FakeDistribution, plugin

import modal_ntk
from modal_ntk import plugins
from modal_ntk.errors import MissingExtraError, ModalNTKWarning, PluginError, UnknownNameError
from modal_ntk.hooks import StrategySpec, hookimpl
from modal_ntk.host import build_host


class Odd(str):
    """A text that says what it likes about itself."""

    def isidentifier(self):
        return True

    isascii = isprintable = isidentifier


def test_builtins_arrive_through_the_entry_points():
    """Every public strategy of the library is registered, by this distribution, under its instance's name."""
    strategies = {s.name: s for s in modal_ntk.list_strategies()}
    assert {"entropy", "least_confidence", "margin", "ntkcpl", "random_sampling"} <= set(strategies)
    for name in ("entropy", "ntkcpl"):
        assert strategies[name].distribution == "modal-ntk"
        assert type(getattr(modal_ntk, name)) is strategies[name].spec.factory
        assert strategies[name].needs == strategies[name].spec.factory.needs
    assert modal_ntk.get_strategy("ntkcpl", max_clusters=7).max_clusters == 7


def test_a_broken_plugin_leaves_the_others_working(monkeypatch):
    """A plugin that fails to import is recorded with its distribution, warned about, and raised when asked for."""
    broken = EntryPoint("broken", "no_such_module_at_all", "modal_ntk"), FakeDistribution("dist-broken")
    with pytest.warns(ModalNTKWarning, match="'broken' of dist-broken is left out: ModuleNotFoundError"):
        host = build_host([broken, plugin("good", monkeypatch, GOOD)])
    assert list(host.strategies) == ["good"]
    assert [f.distribution for f in host.failures] == ["dist-broken"]
    assert "no_such_module_at_all" in host.failures[0].traceback
    with pytest.raises(PluginError, match="dist-broken could not be loaded: ModuleNotFoundError"):
        host.get("broken")
    assert host.get("good", a=1) == {"a": 1}


@pytest.mark.parametrize(
    ("specs", "hook", "reason"),
    [
        (GOOD, "modal_ntk_strategy", "modal_ntk_strategy"),
        (None, "", "has no hook"),
        (RuntimeError("boom"), "modal_ntk_strategies", "RuntimeError: boom"),
        (["good"], "modal_ntk_strategies", "to return StrategySpec records, got 'good'"),
        ([StrategySpec("not a name", dict, "")], "modal_ntk_strategies", "Expected an identifier"),
        ([StrategySpec("x", dict, "", frozenset({"magic"}))], "modal_ntk_strategies", r"declares \['magic'\]"),
        (GOOD[0], "modal_ntk_strategies", "to return a list of StrategySpec records, got StrategySpec"),
        (7, "modal_ntk_strategies", "to return a list of StrategySpec records, got 7"),
        ("good", "modal_ntk_strategies", "to return a list of StrategySpec records, got 'good'"),
        ([], "modal_ntk_strategies", "at least one StrategySpec"),
        ([StrategySpec("x", dict, "\x1b[2J")], "modal_ntk_strategies", "summary of x to be one printable line"),
        ([StrategySpec("\u0435ntropy", dict, "")], "modal_ntk_strategies", "an identifier of ASCII letters"),
        ([StrategySpec(Odd("x\x1b[2J"), dict, "")], "modal_ntk_strategies", "an identifier of ASCII letters"),
        ([StrategySpec("x", dict, Odd("\x1b[31m"))], "modal_ntk_strategies", "summary of x to be one printable line"),
        ([StrategySpec(3, dict, "")], "modal_ntk_strategies", "Expected an identifier"),
        ([StrategySpec("x", dict, "", None)], "modal_ntk_strategies", "needs of x to be a collection"),
        ([StrategySpec("x", dict, "", requires="faiss")], "modal_ntk_strategies", "requires of x to be a collection"),
    ],
    ids=[
        "misspelt hook",
        "no hook",
        "raising hook",
        "wrong record",
        "bad name",
        "unknown need",
        "bare record",
        "number",
        "string",
        "nothing",
        "control characters",
        "letters that look alike",
        "a text that says it is an identifier",
        "a text that says it is printable",
        "name no string",
        "needs None",
        "requires a string",
    ],
)
def test_every_way_of_being_wrong_is_reported(monkeypatch, specs, hook, reason):
    """Misspelt, missing and raising hooks and bad records are failures with their reason; the good plugin works."""
    with pytest.warns(ModalNTKWarning, match="of dist-bad is left out"):
        host = build_host([plugin("bad", monkeypatch, specs, hook or "x"), plugin("good", monkeypatch, GOOD)])
    assert list(host.strategies) == ["good"]
    assert re.search(reason, host.failures[0].reason)


def test_a_name_claimed_twice_stays_with_the_first(monkeypatch):
    """Nobody's strategy is replaced or renamed silently: the later claim is reported by both names and origins."""
    other = [*GOOD, StrategySpec("other", dict, "Another one.")]
    pair = [plugin("one", monkeypatch, GOOD), plugin("two", monkeypatch, other)]
    with pytest.warns(ModalNTKWarning, match=r"'two' of dist-two .*'good' is that of dist-one .*=-dist-two"):
        host = build_host(pair)
    assert {name: s.distribution for name, s in host.strategies.items()} == {"good": "dist-one", "other": "dist-two"}
    assert [(f.name, f.distribution, f.kind) for f in host.failures] == [("two", "dist-two", "duplicate")]
    with pytest.raises(PluginError, match="'good' is that of dist-one"):
        build_host(pair, strict=True)


def test_strict_mode_names_everything_that_is_wrong(monkeypatch):
    """One error lists every failure by plugin and distribution; without failures strict mode changes nothing."""
    bad = [plugin(name, monkeypatch, RuntimeError(name)) for name in ("first", "second")]
    with pytest.raises(PluginError, match=r"'first' of dist-first .*\nPlugin 'second' of dist-second"):
        build_host([*bad, plugin("good", monkeypatch, GOOD)], strict=True)
    assert list(build_host([plugin("good", monkeypatch, GOOD)], strict=True).strategies) == ["good"]


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), type("Odd", (BaseException,), {})("odd")])
def test_no_exception_of_a_plugin_gets_through(monkeypatch, error):
    """Exceptions beside Exception are failures like any other."""
    with pytest.warns(ModalNTKWarning, match=f"left out: {type(error).__name__}"):
        host = build_host([plugin("bad", monkeypatch, error), plugin("good", monkeypatch, GOOD)])
    assert list(host.strategies) == ["good"]


def test_filters_of_warnings_are_the_users(monkeypatch):
    """A plugin may silence its own warnings, but turns nobody's into errors and forgets none of the user's."""
    warnings.filterwarnings("ignore", message="the user's own")

    def meddling():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="my own")
        return GOOD

    pair = plugin("meddling", monkeypatch, GOOD)
    meddling.__name__ = "modal_ntk_strategies"
    sys.modules["fake_meddling"].modal_ntk_strategies = hookimpl(meddling)
    before = list(warnings.filters)
    assert list(build_host([pair]).strategies) == ["good"]
    assert list(warnings.filters[1:]) == before
    assert warnings.filters[0][:2] == ("ignore", re.compile("my own", re.IGNORECASE))


def test_a_list_without_end_is_a_failure(monkeypatch):
    """A plugin that never stops announcing is left out, in bounded time and memory."""
    endless = (StrategySpec(f"s{i}", dict, "") for i in itertools.count())
    with pytest.warns(ModalNTKWarning, match="it may be endless"):
        assert not build_host([plugin("bad", monkeypatch, endless)]).strategies


def test_a_refused_duplicate_is_explained_when_asked_for(monkeypatch):
    """Whoever asks for the plugin by its own name is told whose strategy has the name that it wanted."""
    pair = [plugin("one", monkeypatch, GOOD), plugin("two", monkeypatch, GOOD)]
    with pytest.warns(ModalNTKWarning):
        host = build_host(pair)
    with pytest.raises(PluginError, match=r"'two' of dist-two is left out in part: .*'good' is that of dist-one"):
        host.get("two")
    assert host.get("good", a=1) == {"a": 1}


@pytest.mark.parametrize("odd", [ValueError(), SystemExit(9), KeyboardInterrupt()])
def test_reasons_are_one_printable_line(monkeypatch, odd):
    """What a plugin raises cannot move the cursor, colour the terminal or break the listing; odd errors are told."""

    class Unprintable(Exception):
        def __str__(self):
            raise odd

    bad = [
        plugin("colour", monkeypatch, RuntimeError("\x1b[31mred\n\tand more")),
        plugin("mute", monkeypatch, Unprintable()),
    ]
    with pytest.warns(ModalNTKWarning):
        reasons = [f.reason for f in build_host(bad).failures]
    assert reasons == ["RuntimeError: [31mred and more", "Unprintable: its message cannot be printed"]


@pytest.mark.parametrize(("declared", "remedy"), [(0, "the plugin"), (2, "modal-ntk"), ("two", "the plugin")])
def test_a_plugin_of_another_interface_version_is_explained(monkeypatch, declared, remedy):
    """A declared version that the host does not know is a failure with both versions and what to upgrade."""
    pair = plugin("old", monkeypatch, GOOD)
    sys.modules["fake_old"].MODAL_NTK_API = declared
    with pytest.warns(ModalNTKWarning, match=rf"version {declared!r} of the .* knows 1\. Upgrade {remedy}\."):
        assert not build_host([pair]).strategies


def test_a_slow_plugin_works_and_is_told_with_its_seconds(monkeypatch):
    """Above the limit a plugin is reported as slow, by name, and its strategies are there; the built-in never are."""
    monkeypatch.setattr(plugins, "SLOW_SECONDS", 0.0)
    with pytest.warns(ModalNTKWarning, match=r"'good' of dist-good is slow: importing it took 0\.0 s"):
        host = build_host([plugin("good", monkeypatch, GOOD)])
    assert list(host.strategies) == ["good"]
    assert host.failures[0].kind == "slow"
    assert not build_host(plugins.installed()[0]).failures


def test_metadata_move_no_cursor(monkeypatch):
    """Names and versions of distributions and entry points are shown without what a terminal obeys."""
    entry_point, _ = plugin("good", monkeypatch, RuntimeError("boom"))
    named = EntryPoint("ev\x1b[2Jil", entry_point.value, "modal_ntk"), FakeDistribution("d\x1b]0;t\x07", "1\x1b[31m")
    with pytest.warns(ModalNTKWarning) as caught:
        host = build_host([named])
    assert str(caught[0].message).isprintable()
    assert str(host.failures[0]).isprintable()
    assert host.failures[0].version == "1 [31m"


class TestAllowAndDeny:
    """MODAL_NTK_PLUGINS: names allow, names after a minus deny."""

    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("", ["a", "b", "c"]),
            ("a, c", ["a", "c"]),
            ("-b", ["a", "c"]),
            ("Dist_A", ["a"]),
            ("a,b,-dist.b", ["a"]),
            (" , ", ["a", "b", "c"]),
        ],
    )
    def test_lists(self, monkeypatch, text, left):
        """Entry points and distributions, in any spelling, are allowed or denied; what is denied is disabled."""
        monkeypatch.setenv("MODAL_NTK_PLUGINS", text)
        host = build_host([plugin(n, monkeypatch, [StrategySpec(n, dict, "")]) for n in "abc"])
        assert list(host.strategies) == left
        assert [o.name for o in host.disabled] == [n for n in "abc" if n not in left]

    def test_what_is_denied_is_not_imported(self, monkeypatch):
        """A plugin that breaks does no harm once it is denied; asking for it says why it is not there."""
        monkeypatch.setenv("MODAL_NTK_PLUGINS", "-bad")
        host = build_host([plugin("bad", monkeypatch, RuntimeError()), plugin("good", monkeypatch, GOOD)])
        assert not host.failures
        with pytest.raises(
            PluginError, match=r"'bad' of dist-bad is disabled\. Change MODAL_NTK_PLUGINS, which is '-bad'"
        ):
            host.get("bad")

    def test_unknown_names_are_told(self, monkeypatch):
        """A name that no plugin has is warned about with the near ones, and an error in strict mode."""
        monkeypatch.setenv("MODAL_NTK_PLUGINS", "-god")
        with pytest.warns(ModalNTKWarning, match=r"Unknown plugin 'god'.* 'good'.*MODAL_NTK_PLUGINS='-god'"):
            build_host([plugin("good", monkeypatch, GOOD)])
        with pytest.raises(PluginError, match="Unknown plugin 'god'"):
            build_host([plugin("good", monkeypatch, GOOD)], strict=True)


def test_a_missing_extra_is_told_at_use(monkeypatch):
    """A strategy is listed without what it alone needs, and asking for it gives the command that installs it."""
    specs = [
        StrategySpec("with_extra", dict, "", requires=("json", "no_such_module"), extra="ann"),
        StrategySpec("without", dict, "", requires=("no_such_module", "no_such.part")),
        StrategySpec("complete", dict, "", requires=("json",)),
    ]
    host = build_host([plugin("extras", monkeypatch, specs)])
    assert set(host.strategies) == {"with_extra", "without", "complete"}
    with pytest.raises(MissingExtraError, match=r"'with_extra' needs no_such_module, .*\"dist-extras\[ann\]\""):
        host.get("with_extra")
    with pytest.raises(MissingExtraError, match=r"pip install no_such_module no_such\.part"):
        host.get("without")
    assert host.get("complete", a=1) == {"a": 1}


def test_unknown_names_suggest_the_near_ones():
    """A misspelt strategy is answered with the nearest."""
    with pytest.raises(UnknownNameError, match=r"Unknown strategy 'ntkclp'. Did you mean 'ntkcpl'"):
        modal_ntk.get_strategy("ntkclp")


def test_listing_does_not_import_torch():
    """Names, needs and papers come from metadata and specs alone."""
    code = "import sys, modal_ntk; assert modal_ntk.list_strategies(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
