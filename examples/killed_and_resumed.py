"""
Your own data, killed and resumed
=================================

An archive with labels that are words, three strategies with DDAL among them, and a comparison that is killed half way.
The same command goes on where it was: what is stored is not run again.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from modal_ntk.bench import CurveDisplay

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_SEEDS = 1 if SMALL else 5

# %%
# An archive of four arrays
# -------------------------

WORDS = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
holder = tempfile.TemporaryDirectory()
folder = Path(holder.name)
X, y = load_digits(return_X_y=True)
X, y = X.astype("float32"), WORDS[y]
np.savez_compressed(folder / "digits.npz", x_train=X[:600], y_train=y[:600], x_test=X[600:900], y_test=y[600:900])

# %%
# Killed
# ------
#
# ``kill -9``, as soon as the first rounds are in the store.

modal_ntk = [sys.executable, "-c", "from modal_ntk.cli import main; raise SystemExit(main())"]  # or: modal-ntk
command = [*modal_ntk, "bench", "--dataset", str(folder / "digits.npz")]
for strategy in ("ddal", "margin", "random_sampling"):
    command += ["--strategy", strategy]
command += ["--seeds", str(N_SEEDS), "--out", str(folder / "results")]


def n_rounds() -> int:
    """Return how many rounds the store holds."""
    store = folder / "results" / "results.sqlite"
    if not store.is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM rounds").fetchone()[0])
    except sqlite3.OperationalError:  # it is being made
        return 0


run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while run.poll() is None and n_rounds() == 0:
    time.sleep(0.05)
run.send_signal(signal.SIGKILL)
run.wait()
before = n_rounds()
print(f"killed with {before} rounds stored")

# %%
# Resumed
# -------

done = subprocess.run(command, capture_output=True, text=True)
print(done.stdout.replace(str(folder), "...") or done.stderr)
done.check_returncode()
print(f"{n_rounds()} rounds stored")

# %%
# The page is ``report.html`` in the folder of the results; its curves alone can be drawn where you like.

CurveDisplay.from_store(folder / "results")
plt.show()
holder.cleanup()
