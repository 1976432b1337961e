"""Compiled loops keep to the threads that the user gave torch."""

import subprocess
import sys

import numba
import pytest
import torch

from modal_ntk.structure.threads import threads_of_torch

START = "import torch; torch.set_num_threads(1); import numpy as np; X = np.random.default_rng(0).normal(size=(60, 3));"
LOOPS = {
    "look-ahead": "from modal_ntk import NTKCPL; NTKCPL(max_clusters=5, random_state=0).select(None, X, 4)",
    "a comparison's cell": "from modal_ntk.bench.running.workers import limited_threads\n"
    "with limited_threads(2): pass\n",
    # In place of pynndescent, whose own loops take half a minute to compile, what starts numba's threads as they do.
    "approximate neighbours": "import sys, types, numba\n"
    "class NNDescent:\n"
    "    def __init__(self, X, n_neighbors, random_state, n_jobs):\n"
    "        numba.set_num_threads(n_jobs)\n"
    "        self.neighbor_graph = [np.tile(np.arange(n_neighbors), (len(X), 1))]\n"
    "sys.modules['pynndescent'] = types.SimpleNamespace(NNDescent=NNDescent)\n"
    "from modal_ntk.structure import nearest_neighbors\n"
    "nearest_neighbors(X, 3, method='approximate', random_state=0)",
}


@pytest.mark.parametrize("loop", LOOPS)
def test_the_number_of_torch_threads_stays(loop):
    """In a fresh process, whose first parallel loop starts numba's threads, torch computes with one, also after it."""
    code = f"{START}\n{LOOPS[loop]}\nprint(torch.get_num_threads())"
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["1"]


def test_loops_run_on_as_many_threads_as_torch():
    """Inside, numba's number is torch's; afterwards both are what they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    numbas = numba.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threads_of_torch() as n_threads:
            inside = numba.get_num_threads()
        assert n_threads == inside == 1
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, numbas)
    finally:
        torch.set_num_threads(before)
