"""The plugin host: every plugin through one door, none can take the others along."""

import subprocess
import sys
import types
from importlib.metadata import Distribution, EntryPoint

import pytest

import modal_ntk
from modal_ntk.errors import ModalNTKWarning, PluginError, UnknownNameError
from modal_ntk.hooks import StrategySpec, hookimpl
from modal_ntk.host import build_host


class FakeDistribution(Distribution):
    def __init__(self, name):
        self._name = name

    def read_text(self, filename):
        return f"Name: {self._name}\nVersion: 1.0\n" if filename in ("METADATA", "PKG-INFO") else None

    def locate_file(self, path):
        raise NotImplementedError


def plugin(name, monkeypatch, specs=None, hook="modal_ntk_strategies"):
    module = types.ModuleType(f"fake_{name}")
    if specs is not None:

        def announce():
            if isinstance(specs, Exception):
                raise specs
            return specs

        announce.__name__ = hook
        setattr(module, hook, hookimpl(announce))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return EntryPoint(name, module.__name__, "modal_ntk"), FakeDistribution(f"dist-{name}")


GOOD = [StrategySpec("good", dict, "A good one.", frozenset({"features"}))]


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
    ],
    ids=["misspelt hook", "no hook", "raising hook", "wrong record", "bad name", "unknown need"],
)
def test_every_way_of_being_wrong_is_reported(monkeypatch, specs, hook, reason):
    """Misspelt, missing and raising hooks and bad records are failures with their reason; the good plugin works."""
    with pytest.warns(ModalNTKWarning, match="of dist-bad is left out"):
        host = build_host([plugin("bad", monkeypatch, specs, hook or "x"), plugin("good", monkeypatch, GOOD)])
    assert list(host.strategies) == ["good"]
    import re

    assert re.search(reason, host.failures[0].reason)


def test_two_plugins_with_one_name_are_an_error_that_names_both(monkeypatch):
    """Nobody's strategy is replaced or renamed silently."""
    pair = [plugin("one", monkeypatch, GOOD), plugin("two", monkeypatch, GOOD)]
    with pytest.raises(PluginError, match=r"'good': dist-one .* and dist-two"):
        build_host(pair)


def test_unknown_names_suggest_the_near_ones():
    """A misspelt strategy is answered with the nearest."""
    with pytest.raises(UnknownNameError, match=r"Unknown strategy 'ntkclp'. Did you mean 'ntkcpl'"):
        modal_ntk.get_strategy("ntkclp")


def test_listing_does_not_import_torch():
    """Names, needs and papers come from metadata and specs alone."""
    code = "import sys, modal_ntk; assert modal_ntk.list_strategies(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
