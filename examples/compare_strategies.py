"""
Compare strategies and read the report
======================================

One run of one strategy says little: initial labels, training and ties are all random. A comparison runs every
strategy from the same initial labels, over several seeds, and says how much of what is seen could be chance. On the
command line that is ``modal-ntk bench``; here is the same from Python.
"""

import csv
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from modal_ntk.bench import report, run
from modal_ntk.bench.analysis.significance import penalty_matrix
from modal_ntk.bench.analysis.statistics import curves, summarise

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_SEEDS, N_ROUNDS = (2, 2) if SMALL else (10, 5)

# %%
# The runs
# --------
# Data is a name, the path of an ``.npz``, or a ``Dataset``. Parameters of a strategy follow its name. Every round is
# stored as it ends, so that the same call after a crash goes on where it stopped; a second call changes nothing.

out = Path(tempfile.mkdtemp())
strategies = ["random_sampling", "margin", "badge", "typiclust:n_neighbors=10"]
store = run("digits", strategies, out=out, seeds=N_SEEDS, n_initial=20, batch_size=20, n_rounds=N_ROUNDS)
print(f"{len(store.rows())} rows stored")

# %%
# The table
# ---------
# Mean and sample standard deviation of the test accuracy over seeds, for each number of labels. ``doubts`` is what so
# few seeds cannot support; read it before anything else.

found = report(out)
print(found.table)
for doubt in found.doubts:
    print("note:", doubt)

# %%
# The page
# --------
# ``report.html`` is one file with everything: curves, gains, areas, tests, ranks, times, and what was queried. Its
# pictures and tables lie beside it.

print(*sorted(path.name for path in found.files), sep="\n")

# %%
# Curves are read from left to right: the further left a strategy reaches a height, the more labels it saves.

picture = plt.imread(found.curves)
figure, axes = plt.subplots(figsize=(picture.shape[1] / 110, picture.shape[0] / 110), layout="constrained")
axes.imshow(picture)
axes.set_axis_off()
plt.show()

# %%
# The figures behind it
# ---------------------
# What the page computes is at hand: the area under the curve, and NTKCPL's effective budget ratio, the share of the
# labels at which a strategy's mean is above that of random sampling by more than the latter's deviation.

by_strategy = curves(store.rows())
for name, summary in summarise(by_strategy).items():
    area, ratio = f"{summary.area:.3f} ± {summary.area_deviation:.3f}", summary.effective_budget_ratio
    print(f"{name:24s} area {area}, effective budget {ratio:.2f}")

# %%
# Who beats whom: a cell is the share of label budgets at which the row's strategy is significantly better than the
# column's, in paired tests over seeds with Holm's correction. With few seeds all of it is nought, as it should be.

penalties = penalty_matrix(by_strategy)
print(f"{penalties.n_tests} tests")
for name, line in zip(penalties.strategies, penalties.matrix, strict=True):
    print(f"{name:24s}", " ".join(f"{share:.2f}" for share in line))

# %%
# And every row as CSV, for any other program:

with (out / "rounds.csv").open() as file:
    for line, _ in zip(csv.reader(file), range(3), strict=False):
        print(",".join(line[:5]))
