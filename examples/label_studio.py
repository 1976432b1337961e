"""
A labelling session with Label Studio files
===========================================

Labels come from people, over days, and from another program than Python. ``LabelingSession`` keeps questions and
answers in an SQLite file that is only added to, writes tasks for Label Studio, and reads what was labelled there.
Nothing here needs Label Studio to be installed: a few lines play the annotator.
"""

import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier

from modal_ntk import BADGE, LabelingSession

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_ROUNDS, N_EPOCHS = (3, 20) if SMALL else (8, 60)

X, truth = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_pool, X_test, y_test = X[:1200], X[1200:], truth[1200:]  # the annotator's knowledge is truth[:1200]
files = [f"scans/{row:05d}.png" for row in range(len(X_pool))]

# %%
# The session
# -----------
# It owns the pool, a strategy, and the net that the strategy asks with, which is cloned and trained anew for each
# query. ``classes`` are all labels there may be: an answer that is none of them is refused. Classes are numbers here,
# as skorch wants them; Label Studio shows and returns them as texts, and the session knows which number is meant.


class Classifier(torch.nn.Module):
    """One hidden layer."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(x)


net = NeuralNetClassifier(
    Classifier,
    criterion=torch.nn.CrossEntropyLoss,
    classes=list(range(10)),
    train_split=None,
    lr=0.5,
    max_epochs=N_EPOCHS,
    verbose=0,
)
folder = Path(tempfile.mkdtemp())


session = LabelingSession(
    folder / "labels.sqlite", X_pool, net, BADGE(), classes=list(range(10)), names=files, random_state=0
)
print(repr(session).replace(str(folder), "..."))

# %%
# Out to Label Studio
# -------------------
# ``ask`` chooses the rows; while there are fewer than two classes it draws them at random. The tasks hold what the
# function returns for a row, here the address of an image, and two keys by which the answer finds its way back. In
# Label Studio, the project's labelling interface has a ``Choices`` tag named ``label`` that labels an ``Image`` named
# ``item``.


def shown(row):
    return {"image": f"https://example.org/{files[row]}"}


asked = session.ask(20)
session.export_label_studio(folder / "tasks.json", shown, rows=asked)
print(json.dumps(json.loads((folder / "tasks.json").read_text())[0], indent=1))

# %%
# And back
# --------
# This is the annotator: it adds to each task what Label Studio's JSON export adds, and cancels one in thirty, which
# the session takes for "skipped".


def annotate(tasks, rng):
    for task in tasks:
        label = str(truth[task["data"]["modal_ntk_row"]])
        choice = {"from_name": "label", "to_name": "item", "type": "choices", "value": {"choices": [label]}}
        cancelled = bool(rng.random() < 1 / 30)
        task["annotations"] = [{"result": [] if cancelled else [choice], "was_cancelled": cancelled}]
    return tasks


rng = np.random.default_rng(0)
accuracies, last_images = {}, asked
for step in range(N_ROUNDS):
    if step:
        last_images = session.ask(20)
        session.export_label_studio(folder / "tasks.json", shown, rows=last_images)
    answered = annotate(json.loads((folder / "tasks.json").read_text()), rng)
    (folder / "export.json").write_text(json.dumps(answered))
    n_new = session.import_label_studio(folder / "export.json")
    accuracies[len(session.labeled)] = session.fit().score(X_test, y_test)
    print(f"{n_new} answers read, {session}".replace(str(folder), "..."))

# %%
# Nothing is lost
# ---------------
# The session is what its file says. Opened again, in another process or on another machine, it goes on with the same
# pool; the same export imported twice changes nothing; and an answer can be taken back.

again = LabelingSession(
    folder / "labels.sqlite", X_pool, net, BADGE(), classes=list(range(10)), names=files, random_state=0
)
print("imported again:", again.import_label_studio(folder / "export.json"), "new answers")
row = again.undo()
print("taken back: row", row)
again.export_csv(folder / "labels.csv")
print(*(folder / "labels.csv").read_text().splitlines()[:4], sep="\n")

# %%
# What was asked last, and how far it has brought the net:

figure, grid = plt.subplots(2, 10, figsize=(10, 2.4), layout="constrained")
for axes, row in zip(grid.flat, last_images, strict=True):
    axes.imshow(X_pool[row].reshape(8, 8), cmap="gray_r")
    label = again.label_of(row)
    axes.set_title("skipped" if label is None else label, fontsize="small")
    axes.set(xticks=[], yticks=[])
plt.show()

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(list(accuracies), list(accuracies.values()), marker="o")
axes.set(xlabel="labels", ylabel="accuracy on the test set")
axes.grid(alpha=0.3)
plt.show()
