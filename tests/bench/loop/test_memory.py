"""Peak memory is that of the stretch measured."""

import sys

import numpy as np
import pytest

from modal_ntk.bench.loop.memory import PeakMemory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process set its high-water mark back")
def test_the_peak_is_of_what_was_held_since(tmp_path):
    """100 MiB held and let go are in the peak of the stretch that held them, and not in that of the next."""
    during = PeakMemory()
    before = during.peak().host
    held = np.ones(100 * 2**20, dtype=np.uint8)
    assert held.sum() == 100 * 2**20
    del held
    most = during.peak().host
    after = PeakMemory().peak().host
    assert most - before > 90 * 2**20
    if after > most - 50 * 2**20:
        pytest.skip("this container does not allow it")


def test_without_a_gpu_there_is_no_peak_of_one():
    """None says that nothing was measured, where zero would say that nothing was held."""
    import torch

    peak = PeakMemory().peak()
    assert (peak.gpu is None) == (not torch.cuda.is_initialized())
