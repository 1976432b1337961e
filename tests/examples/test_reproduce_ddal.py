"""The studies of DDAL run to their end when small, and deal poker by its rules."""

import json
import os

import numpy as np
import pytest
import torch
from scripts import imported, run_small


@pytest.mark.slow
def test_the_checkerboard_study_runs_and_goes_on(tmp_path):
    """It leaves curves, the picture of queries and a note for each; again, it repeats the table from the store."""
    first = run_small("ddal_checkerboard", tmp_path, "--board", "binary")
    assert {"curves.png", "queries.png", "results.sqlite", "trace.json"} <= set(os.listdir(tmp_path / "binary"))
    trace = json.loads((tmp_path / "binary" / "trace.json").read_text())
    assert [len(notes) for notes in trace.values()] == [2, 2]
    assert run_small("ddal_checkerboard", tmp_path, "--board", "binary") == first


@pytest.fixture
def checkerboard(monkeypatch):
    return imported("ddal_checkerboard", monkeypatch)


@pytest.mark.slow
def test_compiled_steps_are_those_of_torch(checkerboard):
    """Two fits, the second going on from the first, leave the weights and momenta that torch's own SGD leaves."""
    X, y = checkerboard.checkerboard(4, 12, np.random.default_rng(0))
    nets = []
    for kind in (checkerboard.PlainNet, checkerboard.OneByOneNet):
        torch.manual_seed(0)
        net = kind(
            checkerboard.BoardNet,
            module__n_classes=4,
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            optimizer__momentum=0.9,
            lr=0.01,
            batch_size=1,
            max_epochs=5,
            train_split=None,
            verbose=0,
        )
        nets.append(net.fit(X, y).partial_fit(X[:7], y[:7]))
    for one, other in zip(nets[0].module_.parameters(), nets[1].module_.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        momenta = [net.optimizer_.state[p]["momentum_buffer"] for net, p in zip(nets, (one, other), strict=True)]
        torch.testing.assert_close(*momenta, rtol=1e-3, atol=1e-5)
    assert len(set(nets[1].predict(X))) > 1


def test_the_large_query_runs():
    """The query on dealt hands prints what it picked."""
    assert "1000 picked in" in run_small("ddal_benchmarks", "million")


@pytest.fixture
def benchmarks(monkeypatch):
    return imported("ddal_benchmarks", monkeypatch)


def test_hands_are_labelled_by_the_rules(benchmarks):
    """One hand of each of the ten classes, an ace below two, and a flush that is no straight."""
    hands = {
        "1H 5H 9S 11D 13C": 0,
        "1H 1S 9S 11D 13C": 1,
        "9H 1S 9S 13D 13C": 2,
        "13H 13S 9S 2D 13C": 3,
        "3H 1S 2S 5D 4C": 4,
        "13H 1S 10S 12D 11C": 4,
        "2H 12H 13H 1H 3H": 5,
        "5H 6S 5S 6D 6C": 6,
        "7H 7S 7D 7C 1C": 7,
        "9D 8D 7D 6D 5D": 8,
        "1C 13C 12C 11C 10C": 9,
    }
    numbers = [[("HSDC".index(card[-1]) + 1, int(card[:-1])) for card in text.split()] for text in hands]
    np.testing.assert_array_equal(benchmarks.ranked(np.array(numbers).reshape(-1, 10)), list(hands.values()))


def test_dealt_hands_are_five_different_cards(benchmarks):
    """No card is twice in a hand, all 52 are dealt, and half the hands hold nothing."""
    X, y = benchmarks.deal(20_000, np.random.default_rng(0))
    cards = np.sort(X[:, ::2] * 13 + X[:, 1::2], axis=1)
    assert (np.diff(cards, axis=1) > 0).all()
    assert len(np.unique(cards)) == 52
    assert abs((y == 0).mean() - 1302540 / 2598960) < 0.015


def test_the_study_of_defaults_runs_and_goes_on(tmp_path):
    """Every arm has an area on every task; a second call repeats the tables from the file."""
    first, again = (run_small("ddal_defaults", tmp_path, "--task", "binary", "mnist") for _ in range(2))
    assert first == again
    assert first.count("| ddal |") == 2


def test_a_decaying_rate_starts_anew_with_every_fit(checkerboard):
    """After an epoch of two, and of four, the rate has fallen once, and once more; the next fit begins as the first."""

    class Halved(checkerboard.PlainNet):
        decay = (2, 0.5)

    X, y = checkerboard.checkerboard(2, 8, np.random.default_rng(0))
    net = Halved(checkerboard.BoardNet, module__n_classes=2, lr=0.1, train_split=None, verbose=0, max_epochs=1)
    rates = [net.set_params(max_epochs=n).partial_fit(X, y).optimizer_.param_groups[0]["lr"] for n in (1, 3, 5, 1)]
    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.1])
