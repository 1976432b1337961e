"""
Twenty labels by hand, in two sittings
======================================

A person labels ten samples, closes the laptop, and labels ten more the next day. Here the person is played by the
answers that the data come with, and each sitting is a process of its own; what stays in between is one file.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from modal_ntk import LabelingSession
from modal_ntk.bench import ImagesDisplay

# %%
# One sitting
# -----------
#
# It opens the session, which is made where it is not there yet, and goes on with it where it is. Whoever labels sees
# one sample after another, and may pass it over.

SITTING = """
import sys
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from modal_ntk import LabelingSession, UHerding

digits = load_digits()
pool = digits.data / 16
session = LabelingSession(
    sys.argv[1], pool, LogisticRegression(max_iter=200), UHerding(), classes=list(range(10)), initial="query"
)
print(session)
enough = len(session.labels) + 10
while len(session.labels) < enough:
    for row in session.ask(enough - len(session.labels)):
        if row % 5 == 0:
            session.skip(row)                    # an unreadable one
        else:
            session.tell(row, int(digits.target[row]))
print(session)
if enough == 20:
    print(f"accuracy on the whole pool: {session.fit().score(pool, digits.target):.2f}")
"""

# %%
# Two of them, and what was labelled
# ----------------------------------
#
# Whoever opens the file finds every answer in it.

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "digits.sqlite"
    for _ in range(2):
        ran = subprocess.run([sys.executable, "-c", SITTING, str(file)], capture_output=True, text=True, env=os.environ)
        print(ran.stdout.replace(folder, "...") or ran.stderr)
        ran.check_returncode()
    digits = load_digits()
    session = LabelingSession(file, digits.data / 16, LogisticRegression(), classes=list(range(10)))
    ImagesDisplay.from_indices(digits.images, session.labeled, titles=digits.target)
plt.show()
