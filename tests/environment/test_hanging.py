"""Plugins that interrupt and plugins that hang: Ctrl-C is the user's, and an import that never ends is given up."""

import re
import signal
import subprocess
import sys
import threading

import pytest
from fake_plugins import GOOD, plugin

from modal_ntk.environment import hanging
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.hooks import hookimpl
from modal_ntk.host import build_host

# In a process of its own: an interrupt that got through would end the tests, and whether they run where Ctrl-C is
# ignored, as jobs in the background do, must change nothing.
INTERRUPTS = """
import signal, sys, threading, types, warnings
from importlib.metadata import EntryPoint
from modal_ntk.hooks import StrategySpec, hookimpl
from modal_ntk.host import build_host
from modal_ntk.plugins import installed

def plugin(name, announce):
    announce.__name__ = "modal_ntk_strategies"
    module = types.ModuleType(f"fake_{{name}}")
    module.modal_ntk_strategies = hookimpl(announce)
    sys.modules[module.__name__] = module
    return EntryPoint(name, module.__name__, "modal_ntk"), installed()[0][0][1]

def sends():
    signal.raise_signal(signal.SIGINT)

def raises():
    raise KeyboardInterrupt("evil")

def handler(number, frame):
    raise KeyboardInterrupt("pressed")

def load():
    try:
        with warnings.catch_warnings(record=True) as told:
            host = build_host([plugin("bad", {bad}), plugin("good", lambda: [StrategySpec("good", dict, "Good.")])])
        print(*host.strategies, *[failure.reason for failure in host.failures], len(told), sep="; ")
    except KeyboardInterrupt:
        print("interrupted")

signal.signal(signal.SIGINT, {handler})
thread = threading.Thread(target=load)
{run}
print("kept" if signal.getsignal(signal.SIGINT) is {handler} else "changed")
"""


def interrupts(bad, handler, run="load()"):
    code = INTERRUPTS.format(bad=bad, handler=handler, run=run)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=200)
    return done.stdout.splitlines()


def test_ctrl_c_is_no_failure_of_a_plugin():
    """An interrupt ends the search, as it should, and Python's own handler is there again afterwards."""
    assert interrupts("sends", "signal.default_int_handler") == ["interrupted", "kept"]


@pytest.mark.parametrize("run", ["load()", "thread.start(); thread.join()"], ids=["main thread", "another thread"])
@pytest.mark.parametrize("handler", ["signal.default_int_handler", "signal.SIG_IGN", "signal.SIG_DFL"])
def test_an_interrupt_that_nobody_sent_is_the_plugins(handler, run):
    """A plugin that raises KeyboardInterrupt itself is left out like any other, also where Ctrl-C raises nothing."""
    assert interrupts("raises", handler, run) == ["good; KeyboardInterrupt: evil; 1", "kept"]


@pytest.mark.parametrize(("bad", "end"), [("sends", "interrupted"), ("raises", "good; KeyboardInterrupt: evil; 1")])
def test_where_somebody_handles_ctrl_c_it_is_theirs(bad, end):
    """A Ctrl-C reaches their handler, whose interrupt ends the search; a plugin's own is still the plugin's."""
    assert interrupts(bad, "handler") == [end, "kept"]


def test_where_ctrl_c_ends_a_process_it_does():
    """The system's own way with Ctrl-C stays."""
    code = INTERRUPTS.format(bad="sends", handler="signal.SIG_DFL", run="load()")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=200)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, b"")


def test_a_plugin_that_hangs_is_named_while_it_hangs(monkeypatch):
    """After the limit whoever waits is told for whom, and what to set; the others are loaded as soon as it ends."""
    monkeypatch.setattr(hanging, "HANGING_SECONDS", 0.01)
    told = threading.Event()
    monkeypatch.setattr(hanging.warnings, "warn", lambda text, *_, **__: (texts.append(text), told.set()))
    texts = []

    def patient():
        assert told.wait(60)
        return GOOD

    pair = plugin("patient", monkeypatch, GOOD)
    patient.__name__ = "modal_ntk_strategies"
    sys.modules["fake_patient"].modal_ntk_strategies = hookimpl(patient)
    assert list(build_host([pair]).strategies) == ["good"]
    assert "'patient' of dist-patient is still being imported" in texts[0]
    assert "MODAL_NTK_PLUGINS=-dist-patient" in texts[0]


HANGS = """
import signal, sys, warnings
sys.path.insert(0, {folder!r})
from importlib.metadata import EntryPoint
from modal_ntk import plugins
from modal_ntk.environment import hanging
from modal_ntk.host import build_host
from modal_ntk.plugins import installed
from modal_ntk.strategies.baselines.scores import margin
hanging.HANGING_SECONDS = hanging.IDLE_SECONDS = 0.2
signal.signal(signal.SIGINT, {handler})
modules = {{"margin": margin.__name__}} | {{name: name for name in {names}}}
pairs = [(EntryPoint(name, module, "modal_ntk"), installed()[0][0][1]) for name, module in modules.items()]
for _ in range(2):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        host = build_host(pairs)
    print(*host.strategies, len(told), *[failure.kind for failure in host.failures], sep="; ")
    print(*[failure.reason for failure in host.failures], sep="; ")
for failure in host.failures:
    try:
        host.get(failure.name)
    except Exception as error:
        print(f'{{failure.name}}.py", line' in str(error))
print("kept" if signal.getsignal(signal.SIGINT) is {handler} else "changed")
"""

ENDLESS = {
    "sleeping": "import time; time.sleep(1000)",
    "looping": "while True: pass",
    "waiting": "import threading; threading.Event().wait()",
    "catching": "try:\n  while True: pass\nexcept Exception: pass",
}


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="elsewhere an import that sleeps is not woken")
@pytest.mark.parametrize("handler", ["signal.default_int_handler", "signal.SIG_IGN"])
def test_a_plugin_that_hangs_is_left_out(tmp_path, handler):
    """Named and then given up, with where it hung; the others work, and a process waits for it only once."""
    for name, code in ENDLESS.items():
        (tmp_path / f"{name}.py").write_text(code)
    code = HANGS.format(folder=str(tmp_path), handler=handler, names=list(ENDLESS))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=200)
    first, reasons, second, again, *found, handled = done.stdout.splitlines()
    n = len(ENDLESS)
    assert first == "; ".join(["margin", str(2 * n), *["failed"] * n])
    assert second == "; ".join(["margin", str(n), *["failed"] * n])
    assert len(re.findall(r"given up after \d+ s, .*? set MODAL_NTK_PLUGINS=-modal-ntk", reasons)) == n
    assert again == reasons
    assert (found, handled) == (["True"] * n, "kept")


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="elsewhere an import is ended in another way")
@pytest.mark.parametrize(
    ("looks", "torch", "ended"),
    [((1, 1, 1), False, 0), ((1, 0, 1), False, 1), ((0, 0), False, 2), ((0, 0), True, 0)],
    ids=["goes on", "stops once", "cannot be ended", "torch"],
)
def test_a_slow_import_is_not_a_hanging_one(monkeypatch, looks, torch, ended):
    """What imports something new from one look to the next is waited for, as torch is in any case."""

    class Clock:
        def __init__(self):
            self.looks = iter([0, *looks])

        def wait(self, seconds):
            new = next(self.looks, None)
            for _ in range(new or 0):
                monkeypatch.setitem(sys.modules, f"new_{len(sys.modules)}", None)
            return new is None

    kills = []
    monkeypatch.setattr(hanging.signal, "pthread_kill", lambda *call: kills.append(call))
    monkeypatch.setattr(hanging, "_half_imported", lambda name: torch and name == "torch")
    watch = hanging.Watch("It", "Do this.")
    watch._over, watch._handler = Clock(), signal.default_int_handler
    with pytest.warns(ModalNTKWarning, match=r"It is still being imported after 10 s\. Do this\."):
        watch._wait()
    assert kills == [(threading.main_thread().ident, signal.SIGINT)] * ended


def test_what_is_half_imported_is_known(tmp_path, monkeypatch):
    """A module is so while its own code runs, and no longer."""
    code = "from modal_ntk.environment.hanging import _half_imported\nfound = _half_imported(__name__)"
    (tmp_path / "half_way.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import half_way

    assert half_way.found
    assert not hanging._half_imported("half_way")
    assert not hanging._half_imported("no_such_module")
