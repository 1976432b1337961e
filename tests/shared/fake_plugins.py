"""Plugins that are not installed: distributions and entry points made up for a test."""

import sys
import types
from importlib.metadata import Distribution, EntryPoint

from modal_ntk.hooks import StrategySpec, hookimpl


class FakeDistribution(Distribution):
    def __init__(self, name, version="1.0"):
        self._name, self._version = name, version

    def read_text(self, filename):
        return f"Name: {self._name}\nVersion: {self._version}\n" if filename in ("METADATA", "PKG-INFO") else None

    def locate_file(self, path):
        raise NotImplementedError


def plugin(name, monkeypatch, specs=None, hook="modal_ntk_strategies"):
    module = types.ModuleType(f"fake_{name}")
    if specs is not None:

        def announce():
            if isinstance(specs, BaseException):
                raise specs
            return specs

        announce.__name__ = hook
        setattr(module, hook, hookimpl(announce))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return EntryPoint(name, module.__name__, "modal_ntk"), FakeDistribution(f"dist-{name}")


GOOD = [StrategySpec("good", dict, "A good one.", frozenset({"features"}))]
