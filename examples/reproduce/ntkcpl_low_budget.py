"""NTKCPL at 20 to 100 labels on self-supervised features of Fashion-MNIST, and what its open decisions move.

    MODAL_NTK_DATA=... python examples/reproduce/ntkcpl_low_budget.py table OUT       both feature choices, random
    MODAL_NTK_DATA=... python examples/reproduce/ntkcpl_low_budget.py decisions OUT   one decision changed at a time

The protocol is the paper's first five rounds: 20 labels a query, the first query without labels, the classifier
anew each round, learning rate 0.3. `table` has the whole pool and 10,000 candidates; `decisions` the first 10,000
rows of the pool and 2,500 candidates, for time. Both go on where they were interrupted; MODAL_NTK_JOBS runs several
cells at once. Without the data set, or with MODAL_NTK_SMALL=1, digits stand in, with fewer seeds.
"""

import dataclasses
import os
import sys
import tempfile

from modal_ntk.bench import default_estimator, load_dataset, report, run
from modal_ntk.errors import UnknownNameError

TABLE = ["random_sampling", "ntkcpl", "ntkcpl:variant=self"]
SUBSET = "n_candidates=2500"
DECISIONS = [
    "random_sampling",
    *(
        ",".join(filter(None, (f"ntkcpl:{SUBSET}", change)))
        for change in (
            "",
            "variant=self",
            "kernel=trace",
            "use_f0=False",
            "constraint=none",
            "constraint=must_link",
            "n_start=10",
            "feature_scaling=l2",
            "feature_scaling=standard",
            "normalise_clusters=False",
            "tie_break=margin",
        )
    ),
]


def main(which, out):
    small = bool(os.environ.get("MODAL_NTK_SMALL"))
    try:
        data = load_dataset("digits" if small else "fashion_mnist_simclr")
    except UnknownNameError as error:
        print(error, "Using digits.", sep="\n")
        data = load_dataset("digits")
    if which == "decisions":
        data = dataclasses.replace(data, x_train=data.x_train[:10000], y_train=data.y_train[:10000])
    estimator = default_estimator(data).set_params(lr=0.3)
    strategies = TABLE if which == "table" else DECISIONS
    settings = {"n_initial": 20, "batch_size": 20, "n_rounds": 1 if small else 4, "initial": "query"}
    jobs = int(os.environ.get("MODAL_NTK_JOBS", 1))
    run(data, strategies, out=out, seeds=1 if small else 5, estimator=estimator, jobs=jobs, progress=True, **settings)
    print(report(out).table)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main("table", folder)
