"""Seconds until a query of 200,000 x 64 rows shows something on a terminal, for every strategy.

Run by hand: ``python tests/benchmarks/first_sight.py [strategy ...]``. Each query runs in a process of its own, on a
terminal of its own, and is ended once it has been seen.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

ROWS, COLUMNS = 200_000, 64
LIMIT = 2.0

QUERY = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, torch
from skorch import NeuralNetClassifier
from torch import nn
import modal_ntk

name = sys.argv[1]
rng = np.random.default_rng(0)
pool = rng.normal(size=({rows}, {columns})).astype("float32")
X, y = pool[:100], np.arange(100) % 10
module = nn.Sequential(nn.Linear({columns}, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=2).fit(X, y)
params = {{"critic": lambda X: np.asarray(X)[:, 0]}} if name == "waal" else {{}}
strategy = modal_ntk.get_strategy(name, random_state=0, **params)
print("asked", flush=True)
strategy.select(net, pool, 100, X_labeled=X, y_labeled=y)
print("answered", flush=True)
"""


def seen(name):
    """Return the seconds until something was shown, and until the answer; None for what did not come to pass."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    code = QUERY.format(rows=ROWS, columns=COLUMNS)
    run = subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    try:
        assert run.stdout.readline() == b"asked\n", "the query was never asked"
        began, first = time.monotonic(), None
        while time.monotonic() - began < 30:
            ready, _, _ = select.select([master, run.stdout], [], [], 0.05)
            if master in ready:
                first = time.monotonic() - began
                return first, None, os.read(master, 200).decode(errors="replace")
            if run.stdout in ready:
                return first, time.monotonic() - began, ""
        return None, None, ""
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
        os.close(master)


def main(names):
    """Print a line a strategy; returns how many were silent for longer than the limit."""
    import modal_ntk

    late = 0
    for name in names or [found.spec.name for found in modal_ntk.list_strategies()]:
        shown, answered, text = seen(name)
        took = min(value for value in (shown, answered, 30.0) if value is not None)
        late += took > LIMIT
        what = "answered" if shown is None and answered is not None else "shown" if shown else "SILENT"
        words = " ".join(text.replace("\r", " ").split())[:60]
        print(f"{name:18} {what:9} {took:5.2f} s  {words}", flush=True)
    return late


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
