"""No damage to a file is more than an error of ours, in words that a terminal can show."""

import fuzz_readers
import pytest


@pytest.mark.parametrize("kind", fuzz_readers.KINDS)
def test_damaged_files(kind, tmp_path):
    """Two hundred damaged files of each kind are read rightly or refused; fuzz_readers.py does thousands."""
    outcomes, _ = fuzz_readers.fuzz(kind, 200, tmp_path, seed=1)
    assert not [outcome for outcome in outcomes if outcome.startswith("RAW")]
    assert outcomes["refused"] > 20
