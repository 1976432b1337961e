"""Run as a script by test_kill.py: one labelling session in peace, one by processes that are killed again and again."""

import json
import os
import random
import signal
import sys
import time

import numpy as np
from sklearn.linear_model import LogisticRegression

from modal_ntk import LabelingSession, Margin

X = np.random.default_rng(0).normal(size=(120, 3))
CLASSES = ["left", "right"]


def work(path):
    """Answer what is open, then ask; what comes next depends on the log alone."""
    session = LabelingSession(path, X, LogisticRegression(), Margin(), classes=CLASSES)
    while len(session.labeled) < 36:
        pending = session.pending.tolist()
        wrong = [row for row in session.labeled.tolist() if session.label_of(row) != truth(row)]
        undone = {event.row for event in session.events if event.kind == "undo"}
        if wrong and wrong[-1] % 2 and wrong[-1] not in undone:
            session.undo()
        elif wrong:
            session.correct(wrong[-1], truth(wrong[-1]))
        elif not pending:
            session.ask(4)
        elif pending[0] % 7 == 3:
            session.skip(pending[0])
        else:
            slip = pending[0] % 5 == 0 and pending[0] not in undone
            session.tell(pending[0], CLASSES[1 - CLASSES.index(truth(pending[0]))] if slip else truth(pending[0]))


def truth(row):
    return CLASSES[int(X[row, 0] > 0)]


def forked(path):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(path)
            code = 0
        finally:
            os._exit(code)
    return child


def finish(path):
    _, status = os.waitpid(forked(path), 0)
    assert status == 0


def main(folder, kills):
    calm, rough = f"{folder}/calm.sqlite", f"{folder}/rough.sqlite"
    started = time.monotonic()
    finish(calm)
    seconds = time.monotonic() - started
    draw = random.Random(0)
    landed = 0
    for _ in range(kills):
        child = forked(rough)
        time.sleep(draw.uniform(0, seconds / 10))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        landed += os.WIFSIGNALED(status)
    finish(rough)
    logs = []
    for path in (calm, rough):
        session = LabelingSession(path, X, LogisticRegression(), Margin(), classes=CLASSES)
        logs.append([[e.id, e.kind, e.row, e.value] for e in session.events])
    print(json.dumps({"calm": logs[0], "rough": logs[1], "landed": landed}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
