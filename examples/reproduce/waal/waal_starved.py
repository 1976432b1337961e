"""WAAL where transport has something to do: half of the digits are nearly missing among the labels.

    python examples/reproduce waal_starved OUT [--task classes modes] [--seeds 5] [--rounds 3]

Of the first labels 20 are of each of the digits 0 to 4, and one is of each of the others, the starved ones; then
queries of 25. In the task `classes` the digit is the class, and the starved are uncertain as well. In `modes` the class
is the digit modulo five, so that each class has a starved half, of which a net may be confident and wrong. A training
and a query make an arm:

    random            eq. 7's training, random queries
    no critic         as many steps that the critic only watches, queries by WAAL's uncertainty alone
    eq. 7, eq. 8      WAAL with the weight of either equation
    eq. 8, mu'        eq. 8 with the critic's own step multiplied by mu', as algorithm 1 is written
    H-divergence      a discriminator in place of the critic
    eq. 7, spread     eq. 7 with both terms of the query brought to one spread

Written for every round: test accuracy; the area under the ROC curve by which the critic, in evaluation mode, tells
pool from labels, and within the pool starved digits from the others; the share of the query that is starved. The data
are scikit-learn's digits. The extractor is a layer of 64 with ReLU, trained from scratch each round, for 40 epochs
where the paper has 80; the rest is the paper's.

The same command goes on where it was interrupted, and may be started several times at once. MODAL_NTK_SMALL=1 makes it
seconds.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from cells import add, claimed, paired, rows
from sklearn.metrics import roc_auc_score
from torch import nn

from modal_ntk import WAAL, ActiveLearner, RandomSampling
from modal_ntk.bench import load_dataset
from modal_ntk.nets import NetView, WAALClassifier, seeded

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
ARMS = {
    "random": ({}, lambda seed: RandomSampling(random_state=seed)),
    "no critic": ({"mu": 0.0}, lambda seed: WAAL(critic=lambda X: np.zeros(len(X)), random_state=seed)),
    "eq. 7": ({}, lambda seed: WAAL(random_state=seed)),
    "eq. 8": ({"equation": 8}, lambda seed: WAAL(random_state=seed)),
    "eq. 8, mu'": ({"equation": 8, "critic_weight": None}, lambda seed: WAAL(random_state=seed)),
    "H-divergence": ({"h_divergence": True}, lambda seed: WAAL(random_state=seed)),
    "eq. 7, spread": ({}, lambda seed: WAAL(standardise=True, coefficient=1.0, random_state=seed)),
}
STARVED = range(5, 10)
TASKS = {"classes": 10, "modes": 5}
BATCH = 25


def samples():
    """Flat standardised samples and digits of pool and test set."""
    data = load_dataset("digits")
    mean, std = data.x_train.mean(), data.x_train.std()
    parts = (data.x_train, data.x_test)
    x, x_test = (((part.reshape(len(part), -1) - mean) / std).astype(np.float32) for part in parts)
    return x, data.y_train, x_test, data.y_test


def first_labels(y, seed):
    """20 of each fed digit, one of each starved one."""
    rng = np.random.default_rng(seed)
    counts = {c: 1 if c in STARVED else 20 for c in range(10)}
    return np.concatenate([rng.choice(np.flatnonzero(y == c), n, replace=False) for c, n in counts.items()])


def one_round(arm, seed, labeled, data, n_classes, epochs):
    """Fit from scratch, measure, and choose the next rows."""
    x, digits, x_test, digits_test = data
    y, y_test = digits % n_classes, digits_test % n_classes
    rest = np.setdiff1d(np.arange(len(x)), labeled)
    training, query = ARMS[arm]
    extractor = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU())
    net = WAALClassifier(
        lambda: extractor, classes=range(n_classes), n_instances=BATCH, max_epochs=epochs, verbose=0, **training
    )
    with seeded(1000 * seed + len(labeled)):
        extractor[0].reset_parameters()
        learner = ActiveLearner(net, query(seed), x[labeled], y[labeled], X_unlabeled=x[rest])
    chosen = rest[learner.query(x[rest], n_instances=BATCH)[0]]
    found = {
        "arm": arm, "seed": seed, "n_labels": len(labeled),
        "accuracy": float(learner.score(x_test, y_test)),
        "starved_share": float(np.isin(digits[chosen], STARVED).mean()),
        "chosen": chosen.tolist(),
    }  # fmt: skip
    view = NetView(net)
    with view.no_trace():
        g, g_labeled = (view.logits_and_critic(part)[1].numpy() for part in (x[rest], x[labeled]))
    told = np.repeat([1, 0], [len(g), len(g_labeled)])
    found["auc"] = float(roc_auc_score(told, np.concatenate([g, g_labeled])))
    found["auc_starved"] = float(roc_auc_score(np.isin(digits[rest], STARVED), g))
    found["auc_training"] = net.history[-1]["critic_auc"]
    return found


def run(task, out, *, seeds, rounds, epochs, arms):
    """Do what is not stored yet, and print the table."""
    path, data = Path(out) / f"waal_starved_{task}.jsonl", samples()
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed, arm, _ in claimed(out, [(seed, arm, task) for seed in range(seeds) for arm in arms]):
        before = [r for r in rows(path) if (r["arm"], r["seed"]) == (arm, seed)]
        labeled = np.concatenate([first_labels(data[1], seed), *(r["chosen"] for r in before)]).astype(np.int64)
        for _ in range(len(before), rounds + 1):
            found = one_round(arm, seed, labeled, data, TASKS[task], epochs)
            add(path, found)
            labeled = np.concatenate([labeled, found["chosen"]])
    print(f"{task}: {MEANING}", *table(rows(path)), sep="\n")


MEANING = "test accuracy in per cent by labels, mean over the seeds; area: mean over all rounds"
# Heading, value, and the round it is of.
KNOWN = [("AUC labels", "auc", 0), ("AUC starved", "auc_starved", 0), ("starved in first query", "starved_share", 0)]


def table(found, arms=tuple(ARMS), known=KNOWN):
    """Lines of a table: accuracy by labels, its mean over all rounds, and what the critic knew.

    Differences are to the arm without a critic, paired over the seeds.
    """
    found = sorted(found, key=lambda r: (arms.index(r["arm"]), r["seed"]))
    budgets = sorted({r["n_labels"] for r in found})
    runs = {}
    for r in found:
        runs.setdefault((r["arm"], r["seed"]), []).append(100 * r["accuracy"])
    whole = {run: statistics.fmean(scores) for run, scores in runs.items() if len(scores) == len(budgets)}
    heads = [*(f"{n:,}" for n in budgets), "area", "minus no critic", "seeds", *(heading for heading, _, _ in known)]
    lines = [f"| arm | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    for arm in dict.fromkeys(r["arm"] for r in found):
        scores = [[100 * r["accuracy"] for r in found if (r["arm"], r["n_labels"]) == (arm, n)] for n in budgets]
        cells = [f"{statistics.fmean(s):.1f}" if s else "" for s in scores]
        seeds = [seed for a, seed in whole if a == arm]
        cells.append(f"{statistics.fmean(whole[arm, s] for s in seeds):.2f}" if seeds else "")
        ours, theirs = ({s: v for (a, s), v in whole.items() if a == which} for which in (arm, "no critic"))
        cells += [paired(ours, theirs, 2) if arm != "no critic" else "", str(len(seeds))]
        for _, key, which in known:
            of_round = [r[key] for r in found if (r["arm"], r["n_labels"]) == (arm, budgets[which])]
            values = [value for value in of_round if value is not None]
            cells.append(f"{statistics.fmean(values):.2f}" if values else "")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", help="folder of the results; by default one that is thrown away")
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=1 if SMALL else 5)
    parser.add_argument("--rounds", type=int, default=1 if SMALL else 3)
    parser.add_argument("--epochs", type=int, default=2 if SMALL else 40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for task in arguments.task:
            options = {k: getattr(arguments, k) for k in ("seeds", "rounds", "epochs", "arms")}
            run(task, arguments.out or scratch, **options)
