"""Many rounds of query and teach for every registered strategy: what the process holds must not grow.

Prints memory at chosen rounds, and what was left behind between the first of them and the last. Run by hand:
``python tests/benchmarks/endurance.py`` (options: names of strategies, ``--rounds``).
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import threading

import numpy as np
import psutil
import torch
from sklearn.base import clone

import modal_ntk
from modal_ntk.nets import estimator_of
from modal_ntk.testing.situations import LEARNERS
from modal_ntk.testing.trial import Trial

SETTINGS = {"max_clusters": 12, "n_clusters": 12}
"""Parameters that make a round quick, where a strategy has them."""


def held(learner) -> dict[str, int]:
    """Count what a process could leak: resident memory, tensors, hooks, files, threads, child processes."""
    gc.collect()
    process = psutil.Process()
    module = learner.estimator.module_
    return {
        "bytes": process.memory_info().rss,
        "tensors": sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()),
        "hooks": sum(len(v) for m in module.modules() for k, v in vars(m).items() if k.endswith("_hooks")),
        "files": process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
        "threads": threading.active_count(),
        "processes": len(process.children(recursive=True)),
    }


def rounds(name, n_rounds, at):
    """Yield what is held after each of some rounds of query and teach."""
    strategy = modal_ntk.get_strategy(name, random_state=0)
    strategy.set_params(**{k: v for k, v in SETTINGS.items() if k in strategy.get_params()})
    home = Trial(strategy, "", LEARNERS).home()
    # In one batch, for a last batch of one sample would stop BatchNorm.
    net = clone(estimator_of(home.learner)).set_params(batch_size=64)
    unlabeled = {"X_unlabeled": home.X_pool} if "critic" in strategy.needs else {}
    learner = modal_ntk.ActiveLearner(net, strategy, home.X_labeled, home.y_labeled, **unlabeled)
    for n_round in range(1, n_rounds + 1):
        # The pool keeps its size, so that every round does the same work.
        indices, rows = learner.query(home.X_pool, n_instances=3)
        learner.teach(rows, home.y_labeled[indices % len(home.y_labeled)], only_new=n_round % 2 == 0, **unlabeled)
        learner.X_training, learner.y_training = learner.X_training[-60:], learner.y_training[-60:]
        if n_round in at:
            yield held(learner)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[r.name for r in modal_ntk.list_strategies()])
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    if len(options.names) > 1:
        # A process for each, for memory is the process's.
        print(
            f"{'strategy':18} {'MiB at 1':>9} {'at 50':>8} {'at ' + str(options.rounds):>8}  left behind since round 1"
        )
        for name in options.names:
            command = [sys.executable, __file__, name, "--rounds", str(options.rounds)]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return
    torch.manual_seed(0)
    np.random.seed(0)
    name, marks = options.names[0], (1, min(50, options.rounds), options.rounds)
    found = list(rounds(name, options.rounds, marks))
    memory = "".join(f"{state['bytes'] / 2**20:9.1f}" for state in found)
    left = {kind: found[-1][kind] - found[0][kind] for kind in found[0] if kind != "bytes"}
    print(f"{name:18} {memory}  {', '.join(f'{n} {kind}' for kind, n in left.items())}")


if __name__ == "__main__":
    main()
