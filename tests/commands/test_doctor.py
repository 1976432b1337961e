"""`modal-ntk doctor`: what is there, what is wrong, and the status that says so."""

import json
import sys
import types
from importlib.metadata import version

import pytest

from modal_ntk import host
from modal_ntk.cli import main
from modal_ntk.commands import doctor
from modal_ntk.environment import compatibility
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.hooks import StrategySpec
from modal_ntk.host import Host, RegisteredStrategy
from modal_ntk.plugins import Origin, PluginFailure

VERSION = version("modal-ntk")
GOOD = {"modAL-python": "0.4.1", "scikit-learn": "1.7.2", "skorch": "1.4.0"}


@pytest.fixture
def sound(monkeypatch):
    """A machine on which nothing is wrong, whatever the tests run on."""
    monkeypatch.setattr(compatibility, "installed_versions", lambda: dict(GOOD))
    monkeypatch.setattr(compatibility, "unmet_requirements", lambda: [])
    monkeypatch.delenv("MODAL_NTK_PLUGINS", raising=False)


def test_a_sound_machine_passes_strict(sound, capsys):
    """Nothing is wrong, the status is 0, versions and every built-in strategy with its origin are printed."""
    assert main(["doctor", "--strict"]) == 0
    printed = capsys.readouterr().out
    assert "known to work" in printed
    assert "nothing is wrong" in printed
    assert f"ntkcpl  (modal-ntk {VERSION})  ok" in printed
    assert "devices: cpu" in printed
    assert "repair of modAL, checks by scikit-learn's new name: " in printed


def test_json_holds_what_the_text_says(sound, capsys):
    """The record has versions, combination, devices, plugins, problems and the verdict."""
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"versions", "combination", "devices", "plugins", "repairs", "problems", "ok"}
    assert found["ok"] is True
    assert found["versions"]["skorch"] == "1.4.0"
    assert {"name": "entropy", "distribution": "modal-ntk", "version": VERSION, "state": "ok", "detail": ""} in found[
        "plugins"
    ]


@pytest.mark.parametrize(
    ("change", "combination", "n_problems"),
    [({"scikit-learn": "1.9.1"}, "known not to work", 1), ({"scikit-learn": "1.4.0"}, "not tried", 0)],
)
def test_the_combination_is_judged(sound, monkeypatch, change, combination, n_problems):
    """A clash is a problem with its remedy; what was never run is told as such and is none."""
    monkeypatch.setattr(compatibility, "installed_versions", lambda: {**GOOD, **change})
    monkeypatch.setattr(compatibility, "is_mended", lambda clash: False)
    found = doctor.diagnose()
    assert found.combination == combination
    assert len(found.problems) == n_problems
    monkeypatch.setattr(compatibility, "is_mended", lambda clash: clash is compatibility.MODAL_LEARNER)
    assert not doctor.diagnose().problems
    assert all("modal_ntk.ActiveLearner" in problem for problem in found.problems)


def test_every_state_of_a_plugin_is_shown(sound, monkeypatch, capsys):
    """Missing extras, failures, clashes of names and disabled plugins each have a line with their origin."""
    import warnings

    ann = StrategySpec("near", dict, "", requires=("no_such_module",), extra="ann")
    failures = [PluginFailure("bad", "dist-bad", "boom", version="2"), PluginFailure("slow", "d", "3 s", kind="slow")]
    found = Host(
        {"near": RegisteredStrategy(ann, "near", "dist-near", "1")}, failures, [Origin("off", "dist-off", "3")]
    )

    def build():
        for failure in failures:
            warnings.warn(str(failure), ModalNTKWarning, stacklevel=2)
        return found

    monkeypatch.setattr(host, "build_host", build)
    assert main(["doctor", "--strict"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("near  (dist-near 1)  missing extra" in x and 'pip install "dist-near[ann]"' in x for x in lines)
    assert "  bad  (dist-bad 2)  failed: boom" in lines
    assert any(x.startswith("  slow  (d )  slow") for x in lines)
    assert "  off  (dist-off 3)  disabled: by the environment variable MODAL_NTK_PLUGINS" in lines
    assert "  - Plugin 'bad' of dist-bad is left out: boom" in lines


def test_missing_extras_and_disabled_plugins_are_no_problem(sound, monkeypatch):
    """Both are somebody's choice, so strict mode lets them through."""
    ann = StrategySpec("near", dict, "", requires=("no_such_module",))
    found = Host({"near": RegisteredStrategy(ann, "near", "dist-near", "1")}, [], [Origin("off", "dist-off", "3")])
    monkeypatch.setattr(host, "build_host", lambda: found)
    assert main(["doctor", "--strict"]) == 0


def test_what_a_plugin_prints_stays_out_of_the_json(sound, monkeypatch, capsys):
    """Output at import goes to stderr, for doctor and for the listing."""

    def build():
        print("I am a chatty plugin")
        return Host()

    monkeypatch.setattr(host, "build_host", build)
    for command in ("doctor", "strategies"):
        assert main([command, "--json"]) == 0
        printed = capsys.readouterr()
        json.loads(printed.out)
        assert "chatty" in printed.err


def test_a_torch_that_does_not_load_is_a_finding(sound, monkeypatch):
    """Doctor goes on without torch and tells what its import raised."""
    monkeypatch.setitem(sys.modules, "torch", None)
    found = doctor.diagnose()
    assert found.devices == []
    assert "torch cannot be imported: ModuleNotFoundError" in found.problems[0]


def test_every_gpu_is_named(sound, monkeypatch):
    """Each CUDA device is listed with name and memory."""
    properties = types.SimpleNamespace(name="Big GPU", total_memory=80 * 2**30)
    cuda = types.SimpleNamespace(device_count=lambda: 2, get_device_properties=lambda i: properties)
    mps = types.SimpleNamespace(is_available=lambda: True)
    fake = types.SimpleNamespace(cuda=cuda, backends=types.SimpleNamespace(mps=mps))
    monkeypatch.setitem(sys.modules, "torch", fake)
    assert doctor.diagnose().devices == ["cpu", "cuda:0 (Big GPU, 80 GiB)", "cuda:1 (Big GPU, 80 GiB)", "mps"]
