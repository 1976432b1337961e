"""Damages files of every kind that the library reads, and counts what comes out beside its own errors.

Run as a script, it does so by the thousand: ``python tests/hunts/fuzz_readers.py 10000 --jobs 16``, of every kind or
of those that are named. The suite does 200 of each. The status is 1 if anything came out that is no error of the
library's.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import multiprocessing
import random
import sqlite3
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from modal_ntk import LabelingSession
from modal_ntk.bench import Protocol, load_dataset
from modal_ntk.bench.loop.rounds import Round
from modal_ntk.bench.running.verification import _last_run
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.errors import ModalNTKError

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.arange(12) % 3
TOKENS = (b"", b"\0", b'"', b"'", b"[" * 5000, b"{", b"}", b"1e999", b"NaN", b"-1", b"9" * 5000, b"null", b"true",
          b"\xff", b"\n", b";", b",", b"\x1b[2J", b"=1+1", b"label", b"1e21", b"0.5", b"[]", b"''")  # fmt: skip
VALUES = (None, -1, 2**62, 1e308, float("inf"), "", "[", "[" * 5000, "{}", "null", '{"a": [1]}', "[1e999]", "[-1]",
          b"\xff", "[0.5]", '"x"', "9" * 5000, "\x1b[2J", '{"protocol": 1, "how": [], "versions": {}}', "[1, 1]",
          "[true]")  # fmt: skip


def damaged(rng: random.Random, good: bytes) -> bytes:
    """Change some bytes, cut, double or move a piece, or put in a token."""
    data = bytearray(good)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        act = rng.randrange(6)
        if act < 2 and data:
            data[rng.randrange(len(data))] = rng.randrange(256)
        elif act == 2:
            del data[at : min(to, at + 40)]
        elif act == 3:
            data[at:at] = data[at : min(to, at + 200)]
        else:
            data[at : min(to, at + rng.randrange(8))] = rng.choice(TOKENS)
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data)


class Readers:
    """For each kind of file a sound one, and what reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good = {name: getattr(self, f"make_{name}")() for name in ("npz", "csv", "studio", "toml", "store", "log")}

    def make_npz(self) -> bytes:
        file = io.BytesIO()
        np.savez_compressed(file, x_train=X, y_train=Y, x_test=X, y_test=Y)
        return file.getvalue()

    def read_npz(self, data: bytes, rng: random.Random) -> None:
        path = self.folder / "f.npz"
        if rng.random() < 0.5:  # inside of an archive that is whole
            with zipfile.ZipFile(io.BytesIO(self.good["npz"])) as archive, zipfile.ZipFile(path, "w") as out:
                for name in archive.namelist():
                    whole = archive.read(name)
                    out.writestr(name, damaged(rng, whole[:130]) + whole[130:] if rng.random() < 0.4 else whole)
        else:
            path.write_bytes(data)
        found = load_dataset(path)
        assert np.isfinite(found.x_train).all()
        assert found.x_train.dtype == np.float32

    def session(self) -> LabelingSession:
        path = self.folder / "s.sqlite"
        path.unlink(missing_ok=True)
        return LabelingSession(path, X, names=[f"n{i}" for i in range(12)], classes=["cat", "dog"])

    def make_csv(self) -> bytes:
        return b'row,name,status,label\n0,n0,labelled,cat\n1,n1,skipped,\n2,n2,pending,\n3,n3,labelled,"dog"\n'

    def read_csv(self, data: bytes, rng: random.Random) -> None:
        self.told(data, "import_csv")

    def told(self, data: bytes, method: str) -> None:
        path, session = self.folder / "told", self.session()
        path.write_bytes(data)
        try:
            getattr(session, method)(path)
        except ModalNTKError:
            assert session.events == []
            raise
        assert set(session.labels.tolist()) <= {"cat", "dog"}

    def make_studio(self) -> bytes:
        tasks = []
        for row, label in enumerate(["cat", "dog", "cat"]):
            result = {"type": "choices", "from_name": "label", "value": {"choices": [label]}}
            data = {"modal_ntk_row": row, "modal_ntk_pool": self.session().pool}
            tasks.append({"id": row, "data": data, "annotations": [{"result": [result]}]})
        return json.dumps(tasks).encode()

    def read_studio(self, data: bytes, rng: random.Random) -> None:
        if rng.random() < 0.5:  # JSON that is whole, with an odd value somewhere
            tasks = json.loads(self.good["studio"])
            _spoil(tasks, rng)
            data = json.dumps(tasks).encode()
        self.told(data, "import_label_studio")

    def make_toml(self) -> bytes:
        return (
            b'dataset = "digits"\nstrategies = ["margin", { name = "ntkcpl", max_clusters = 5 }]\nseeds = [0, 3]\n'
            b'n_initial = 6\nbatch_size = [4, 2]\nreinitialise = true\nvalidation = 9\nmetrics = ["accuracy"]\n'
            b'imbalance = 2.0\ntest_size = 0.3\n[estimator]\npath = "a:b"\nparams = { C = 0.5 }\n'
        )

    def read_toml(self, data: bytes, rng: random.Random) -> None:
        path = self.folder / "f.toml"
        path.write_bytes(data)
        for protocol in Protocol.all_from_toml(path).values():
            assert protocol.digest
            assert protocol.cells

    def make_store(self) -> bytes:
        folder = self.folder / "made"
        store = Store(folder)
        store.agree({"dataset": "digits", "batch_sizes": [3]})
        protocol = Protocol(strategies=["margin"]).to_dict()
        store.begin({"protocol": protocol, "how": {"threads": 1, "given": []}, "versions": {"torch": "2"}})
        store.add("margin", 0, [Round(5, 0.5, 0.0, 0.0, np.arange(5)), Round(8, 0.7, 0.1, 0.1, np.arange(5, 8))])
        store.note("margin", 1, 0, Round(5, 0.5, 0.0, 0.0, np.arange(5)))
        return _whole(folder / FILE_NAME)

    def read_store(self, data: bytes, rng: random.Random) -> None:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        tables = {"protocol": ["key", "value"], "runs": ["manifest"],
                  "unfinished": ["strategy", "seed", "round", "entry"],
                  "rounds": ["strategy", "seed", "round", "n_labels", "score", "query_seconds", "indices"],
                  "details": ["scores", "metrics", "fit_seed", "peak_memory"]}  # fmt: skip
        self.in_tables(folder / FILE_NAME, "store", data, tables, rng)
        store = Store.open(folder)
        for row in store.rows():
            assert row.n_labels >= 0
            assert np.isfinite(row.score)
        store.protocol(), store.manifests(), store.under_way()
        for label, seed in sorted(store.finished()):
            store.noted(label, seed), store.stored(label, seed)
        _last_run(store)

    def make_log(self) -> bytes:
        session = self.session()
        session.ask(2)
        session.tell(0, "cat")
        session.skip(1)
        session.undo()
        return _whole(self.folder / "s.sqlite")

    def read_log(self, data: bytes, rng: random.Random) -> None:
        path = Path(tempfile.mkdtemp(dir=self.folder)) / "log.sqlite"
        tables = {"session": ["key", "value"], "events": ["kind", "row", "value", "time", "id"]}
        self.in_tables(path, "log", data, tables, rng)
        session = LabelingSession(path, X, names=[f"n{i}" for i in range(12)], classes=["cat", "dog"])
        assert len(session.labels) == len(session.labeled)
        assert session.pending is not session.skipped
        assert session.events

    def in_tables(self, path: Path, kind: str, data: bytes, tables: dict, rng: random.Random) -> None:
        """Put down the damaged bytes, or a sound file with odd values in its columns."""
        if rng.random() < 0.4:
            path.write_bytes(data)
            return
        path.write_bytes(self.good[kind])
        connection = sqlite3.connect(path)
        for trigger in ("stay", "remain"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        for _ in range(rng.choice([1, 2])):
            table = rng.choice(list(tables))
            with contextlib.suppress(sqlite3.Error):
                connection.execute(f"UPDATE {table} SET {rng.choice(tables[table])} = ?", (rng.choice(VALUES),))
        if rng.random() < 0.1:
            connection.execute(
                rng.choice(["PRAGMA user_version = 7", "CREATE VIEW v AS SELECT 1", "CREATE TABLE t (a)"])
            )
        connection.commit()
        connection.close()


def _whole(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    return path.read_bytes()


def _spoil(value, rng: random.Random) -> None:
    """Replace something deep inside of lists and dicts by an odd value."""
    while True:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if not isinstance(value[key], (dict, list)) or not value[key] or rng.random() < 0.25:
            value[key] = rng.choice(
                [None, -1, "x", [], {}, True, 1e300, ["a", "b"], [None], {"choices": [1]}, "\x1b[2J"]
            )
            return
        value = value[key]


def fuzz(name: str, n: int, folder: Path, seed: int = 0) -> tuple[collections.Counter, float]:
    """Return how often each outcome came, raw exceptions by their place, and the longest time that one took."""
    readers, rng = Readers(folder), random.Random(seed)
    outcomes: collections.Counter = collections.Counter()
    longest = 0.0
    for _ in range(n):
        data = damaged(rng, readers.good[name])
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                getattr(readers, f"read_{name}")(data, rng)
            outcomes["read"] += 1
        except ModalNTKError as error:
            outcomes["refused" if str(error).replace("\n", " ").isprintable() else f"RAW unprintable {error!r}"] += 1
        except Exception as error:  # noqa: BLE001 - which it is, is what is asked
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcomes[f"RAW {type(error).__name__}: {str(error)[:80]} at {Path(last.filename).name}:{last.lineno}"] += 1
        longest = max(longest, time.perf_counter() - started)
    return outcomes, longest


KINDS = ("npz", "csv", "studio", "toml", "store", "log")


def shard(kind: str, n: int, seed: int) -> tuple[str, int, collections.Counter, float, int]:
    """Fuzz one kind in a folder of its own; the last of what it returns is the most memory held, in MiB."""
    with tempfile.TemporaryDirectory() as place:
        found, slowest = fuzz(kind, n, Path(place), seed)
    return kind, seed, found, slowest, _most_memory()


def _most_memory() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int, help="damaged files of each kind")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"which of {', '.join(KINDS)}; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the first shard")
    parser.add_argument("--jobs", type=int, default=1, help="shards of each kind, and processes")
    asked = parser.parse_args()
    if unknown := set(asked.kinds) - set(KINDS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}")
    kinds = asked.kinds or KINDS
    sizes = [len(part) for part in np.array_split(np.arange(asked.n), asked.jobs) if len(part)]
    tasks = [(kind, size, asked.seed + i) for i, size in enumerate(sizes) for kind in kinds]
    outcomes: dict[str, collections.Counter] = {kind: collections.Counter() for kind in kinds}
    slowest, memory = dict.fromkeys(kinds, 0.0), dict.fromkeys(kinds, 0)
    with ProcessPoolExecutor(asked.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for kind, seed, found, seconds, held in pool.map(shard, *zip(*tasks, strict=True)):
            outcomes[kind] += found
            slowest[kind], memory[kind] = max(slowest[kind], seconds), max(memory[kind], held)
            for raw in sorted(found):
                if raw.startswith("RAW"):
                    print(f"{kind}, seed {seed}, {found[raw]} times: {raw}", flush=True)
    raw_ends = 0
    for kind, found in outcomes.items():
        ours = found["read"] + found["refused"]
        raw_ends += found.total() - ours
        print(f"{kind}: {found['read']} read, {found['refused']} refused in words, {found.total() - ours} else; "
              f"slowest {slowest[kind]:.2f} s, at most {memory[kind]} MiB")  # fmt: skip
    return int(raw_ends > 0)


if __name__ == "__main__":
    sys.exit(main())
