"""Several processes on one store: a cell belongs to one of them, for as long as that one lives."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from modal_ntk.bench.loop.rounds import Round
from modal_ntk.bench.storage import claims as module
from modal_ntk.bench.storage.claims import Claims
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.bench.storage.storefile import journal_of
from modal_ntk.errors import StorageError

CURVE = [Round(6, 0.5, 0.0, 0.1, np.arange(6))]
CELLS = [("margin", seed) for seed in range(40)]

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told apart by Linux's /proc")


@pytest.fixture
def store(tmp_path):
    """A new store."""
    return Store(tmp_path)


def held(store):
    with store.writing() as connection:
        return sorted(connection.execute("SELECT strategy, seed FROM claims").fetchall())


def elsewhere(store, cell, beat=0):
    """Claim a cell as a process of another machine would."""
    with store.writing() as connection:
        connection.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, 'there 1 2 x', ?)", (*cell, beat))


def test_a_cell_is_claimed_once(store):
    """Whoever comes first has it until it is let go, is stored, or its holder ends; nothing is left then."""
    first, second = Claims(store, 1), Claims(store, 1)
    with first, second:
        assert first.take(("a", 0)) == first.take(("a", 0)) == "ours"
        assert second.take(("a", 0)) == "taken"
        second.free(("a", 0))  # what is not its own stays
        assert second.take(("a", 0)) == "taken"
        first.free(("a", 0))
        assert second.take(("a", 0)) == "ours"
        store.add("a", 0, CURVE)
        assert held(store) == []
        assert first.take(("a", 0)) == second.take(("a", 0)) == "done"
        assert first.take(("a", 1)) == "ours"
    assert held(store) == []


def test_a_cell_of_too_few_rounds_is_not_done(store):
    """Where more rounds are asked for, a stored cell is claimed again."""
    store.add("a", 0, CURVE)
    with Claims(store, 2) as claims:
        assert claims.take(("a", 0)) == "ours"


def claim_all(folder, outcomes):
    with Claims(Store(folder), 1) as claims:
        for cell in CELLS:
            if claims.take(cell) == "ours":
                outcomes.put((os.getpid(), cell))
                time.sleep(0.002)
                Store(folder).add(*cell, CURVE)
        outcomes.put(None)


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_many_processes_share_the_cells(tmp_path, monkeypatch, journal):
    """Four at once claim each of forty cells exactly once, also with the journal of folders that machines share."""
    monkeypatch.setattr("modal_ntk.bench.storage.storefile.journal_of", lambda folder: journal)
    context = multiprocessing.get_context("fork")
    Store(tmp_path)
    outcomes = context.Queue()
    processes = [context.Process(target=claim_all, args=(tmp_path, outcomes)) for _ in range(4)]
    for process in processes:
        process.start()
    ended, claimed = 0, []
    while ended < 4:
        found = outcomes.get(timeout=60)
        ended, claimed = (ended + 1, claimed) if found is None else (ended, [*claimed, found])
    for process in processes:
        process.join()
    assert Counter(cell for _, cell in claimed) == Counter(CELLS)
    assert len({pid for pid, _ in claimed}) > 1
    assert held(Store(tmp_path)) == []
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (journal.lower(),)
    connection.close()


HOLD = """
import sys, time
from modal_ntk.bench.storage.claims import Claims
from modal_ntk.bench.storage.store import Store
with Claims(Store(sys.argv[1]), 1) as claims:
    print(claims.take(("a", 0)), flush=True)
    time.sleep(100)
"""


@linux
@pytest.mark.parametrize("how", ["killed", "not yet buried"])
def test_the_claim_of_a_killed_process_is_free_at_once(store, how):
    """On one machine nobody waits for the dead, not even for one whose parent has not looked yet."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(store.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ours\n"
    with Claims(store, 1) as claims:
        assert claims.take(("a", 0)) == "taken"
        os.kill(process.pid, signal.SIGKILL)
        if how == "killed":
            process.wait()
        else:
            while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.01)
        assert claims.take(("a", 0)) == "ours"
        process.wait()
        process.stdout.close()


@linux
def test_a_number_that_came_again_is_another_process(store):
    """A claim under a living number that began at another time is a dead one's."""
    here = Claims(store, 1)
    place, pid, began, token = here._owner.split(" ")
    with store.writing() as connection:
        connection.execute("INSERT INTO claims VALUES ('a', 0, ?, 0)", (f"{place} {pid} {int(began) - 1} {token}",))
        connection.execute("INSERT INTO claims VALUES ('a', 1, ?, 0)", (f"{place} {pid} {began} other",))
    assert here.take(("a", 0)) == "ours"
    assert here.take(("a", 1)) == "taken"


@pytest.mark.parametrize("known", [True, False])
def test_the_claim_of_another_machine_holds_while_it_gives_signs(store, monkeypatch, known):
    """By the looker's own clock: a new sign renews the lease, and only the whole of it without one ends the claim."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    if not known:  # a system that does not tell about its processes
        monkeypatch.setattr(module, "_is_alive", lambda pid, began: None)
    here, other = Claims(store, 1), Claims(store, 1)
    if known:
        elsewhere(store, ("a", 0))
    else:
        assert other.take(("a", 0)) == "ours"
    outcomes = []
    for beat in (0, 1, 1, 1):
        with store.writing() as connection:
            connection.execute("UPDATE claims SET beat = ?", (beat,))
        outcomes.append(here.take(("a", 0)))
        now[0] += module.LEASE * 0.9
    assert outcomes == ["taken", "taken", "taken", "ours"]


def test_signs_are_given_and_end(store, monkeypatch):
    """While entered a claim's number rises; an error of the disk in between ends nothing."""
    monkeypatch.setattr(module, "BEAT", 0.01)
    writing, failing = type(store).writing, [True]

    def sometimes(self):
        if failing[0]:
            failing[0] = False
            raise StorageError("full")
        return writing(self)

    def beats():
        with sqlite3.connect(store.folder / FILE_NAME) as connection:
            (found,) = connection.execute("SELECT beat FROM claims").fetchone()
        connection.close()
        return found

    claims = Claims(store, 1)
    assert claims.take(("a", 0)) == "ours"
    monkeypatch.setattr(type(store), "writing", sometimes)
    with claims:
        until = time.monotonic() + 30
        while beats() < 3 and time.monotonic() < until:
            time.sleep(0.01)
        assert beats() >= 3
    assert held(store) == []


def test_passes_take_up_what_others_leave(store, monkeypatch):
    """Cells of others are waited for: those they finish are told, those they leave are yielded, and each once."""
    here, other = Claims(store, 1), Claims(store, 1)
    cells = [("a", seed) for seed in range(5)]
    for seed in (1, 2, 3):
        other.take(("a", seed))
    moves = iter([lambda: store.add("a", 1, CURVE), lambda: other.free(("a", 3)), lambda: store.add("a", 2, CURVE)])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: next(moves)())
    ran, told = [], []
    for some in here.passes(cells, told.append):
        ran.append(list(some))
        for cell in ran[-1]:
            store.add(*cell, CURVE)
    assert ran == [[("a", 0), ("a", 4)], [("a", 3)]]
    assert told == [("a", 1), ("a", 2)]


def test_a_round_stored_by_another_is_not_noted(store):
    """A halted process that goes on leaves nothing beside the rows of who took its cell over."""
    store.note("a", 0, 0, CURVE[0])
    store.add("a", 0, CURVE)
    store.note("a", 0, 0, CURVE[0])
    assert store.under_way() == {}
    store.note("a", 0, 1, CURVE[0])  # of a schedule that is lengthened
    store.note("a", 0, 1, CURVE[0])
    assert len(store.noted("a", 0, 1)) == 1


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("ext4", "WAL"), ("nfs4", "DELETE"), ("fuse.sshfs", "DELETE"), ("tmpfs", "WAL"), ("cifs", "DELETE")],
)
def test_the_journal_of_shared_folders(tmp_path, kind, expected):
    r"""Where the innermost mount is a network's, its folders, also with a space in the name, take the old journal."""
    shared = tmp_path / "my share" / "results"
    shared.mkdir(parents=True)
    table = tmp_path / "mounts"
    point = str(shared.parent.resolve()).replace(" ", r"\040")
    table.write_text(f"root / nfs rw 0 0\nx {tmp_path.resolve()} ext4 rw 0 0\ny {point} {kind} rw 0 0\n")
    assert journal_of(shared, table) == expected
    assert journal_of(tmp_path, table) == "WAL"
    assert journal_of(shared, tmp_path / "none") == "WAL"
