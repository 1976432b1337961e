"""What a query will cost: the measured table, powers of every number asked for, and the machine's speed."""

import csv
import subprocess
import sys

import growth_page
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_ntk import list_strategies
from modal_ntk.bench import Speed, estimate_cost, measured_strategies
from modal_ntk.bench.analysis import cost
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError, UnknownNameError

THERE = Speed(0.002, 0.004)
POWERS = {"columns": 0.5, "picks": 1.0, "classes": 0.25, "labels": 0.0}
FIELDS = ["strategy", "rows", *cost.USUAL, "seconds", "peak_bytes", "before_bytes", "product", "copy", "error"]


def law(rows, asked):
    """3e-6 n^1.5 seconds and 100 n^1.25 bytes of work, by hand, times the powers of what else is asked for."""
    scale = np.prod([(asked[name] / value) ** POWERS[name] for name, value in cost.USUAL.items()])
    return 3e-6 * rows**1.5 * scale, 100 * rows**1.25 * scale


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table that follows the law exactly, of a strategy that could not be run with a million rows."""
    points = [(n, cost.USUAL) for n in (100_000, 5_000, 20_000)]  # in any order
    points += [(5_000, cost.USUAL | {name: 4 * value}) for name, value in cost.USUAL.items()]
    path = tmp_path_factory.mktemp("table") / "growth.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for rows, asked in points:
            seconds, work = law(rows, asked)
            before = 10**9 + 4 * rows * asked["columns"]
            memory = {"before_bytes": before, "peak_bytes": before + int(work)}
            writer.writerow({"strategy": "one", "rows": rows, **asked, "seconds": seconds, **memory, **THERE._asdict()})
        writer.writerow({"strategy": "one", "rows": 1_000_000, **cost.USUAL, "error": "MemoryError"})
    return path


@given(
    rows=st.integers(5_000, 10**7),
    columns=st.integers(1, 500),
    picks=st.integers(1, 5_000),
    classes=st.integers(1, 100),
    labels=st.integers(1, 1000),
    slower=st.floats(0.1, 10),
)
def test_a_law_is_found_again(table, rows, columns, picks, classes, labels, slower):
    """Between and beyond what was measured, a cost that is a power of every number asked for is met exactly."""
    asked = {"columns": columns, "picks": picks, "classes": classes, "labels": labels}
    machine = Speed(slower * THERE.product, slower * THERE.copy)
    found = estimate_cost("one", rows, **asked, machine=machine, table=table)
    seconds, work = law(rows, asked)
    assert found.seconds == pytest.approx(slower * seconds, rel=1e-6)
    assert found.work == pytest.approx(work, rel=1e-3)
    assert found.pool == 4 * rows * columns
    assert found.peak == pytest.approx(10**9 + found.pool + found.work)


def test_what_was_not_measured_is_said(table):
    """Within the table nothing; beyond, how far it goes and how it ended; below the fewest rows, what those cost."""
    small, least, most, more = (
        estimate_cost("one", rows, machine=THERE, table=table) for rows in (50, 5_000, 100_000, 200_000)
    )
    assert small.seconds == least.seconds
    assert "measured" not in str(most)
    assert str(most) == "one: 95 s, 1.1 GiB; seconds grow as rows^1.50"
    assert str(more).endswith("measured to 100,000 rows (MemoryError beyond)")


def test_less_for_more_is_chance():
    """What falls with the rows, and a cost that is less for four times as many columns, has exponent nought."""
    growth = cost.Growth((1_000, 10_000, 100_000), (1.0, 4.0, 1.0))
    assert growth.exponent == 0
    assert growth.at(10**7) == pytest.approx(1.0)
    line = {**{name: str(value) for name, value in cost.USUAL.items()}, "error": "", "before_bytes": "0"}
    lines = [line | {"rows": str(n), "seconds": str(n), "peak_bytes": str(2**21)} for n in (1_000, 10_000)]
    lines.append(lines[0] | {"columns": "256", "seconds": "900"})
    assert cost._measured(lines[1:]) is None
    found = cost._measured(lines)
    assert found.seconds.powers == {"columns": 0.0}
    assert found.work.powers == {"columns": 0.0}


def test_every_strategy_of_the_package_was_measured():
    """What ships with the package has its lines in the table that ships with it."""
    own = {spec.name for spec in list_strategies() if spec.distribution == "modal-ntk"}
    assert set(measured_strategies()) == own


def test_within_a_factor_of_two():
    """Queries that the estimate has not seen, of other sizes and of other everything: seconds and peak memory of each.

    On the machine that measured them, as fast as it was then.
    """
    lines = [line for line in cost.read_table(growth_page.HELD_OUT) if not line["error"]]
    fitted = {growth_page.point_of(line) for line in cost.read_table()}
    assert len(lines) >= 75
    assert not fitted & {growth_page.point_of(line) for line in lines}
    for line in lines:
        assert all(0.5 <= ratio <= 2 for ratio in growth_page.ratios(line)), line


@pytest.mark.parametrize("text", ["", "strategy,rows\nbadge,1000\n", "\0", "strategy,error\nbadge\n"])
def test_what_is_no_table_is_refused(tmp_path, text):
    """Empty files, other tables, and files that are not there."""
    (tmp_path / "other.csv").write_text(text)
    for name in ("other.csv", "nothing.csv"):
        with pytest.raises(InvalidInputError, match="a table of measured queries"):
            estimate_cost("badge", 1_000, table=tmp_path / name)


@pytest.mark.parametrize(
    ("name", "value"), [("rows", "5e3"), ("rows", "0"), ("seconds", "0"), ("seconds", "nan"), ("product", "inf")]
)
def test_a_number_that_is_none_is_refused(table, tmp_path, name, value):
    """One damaged number in a table is no raw error, and no estimate of nought or NaN either."""
    lines = cost.read_table(table)
    lines[0][name] = value
    damaged = tmp_path / "damaged.csv"
    with damaged.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(lines)
    with pytest.raises(InvalidInputError, match="a table of measured queries"):
        estimate_cost("one", 1_000, machine=THERE, table=damaged)


def test_what_cannot_be_estimated_is_refused():
    """Unknown names, with near ones; numbers that are none; more picks than rows."""
    with pytest.raises(UnknownNameError, match="badge"):
        estimate_cost("bagde", 1_000)
    for wrong in ({"rows": 0}, {"rows": 2.5}, {"rows": 100, "columns": -1}):
        with pytest.raises(InvalidInputError):
            estimate_cost("badge", **wrong)
    with pytest.raises(InvalidInputError, match="picks of at most the pool's 10 rows, got 20"):
        estimate_cost("badge", 10)
    assert estimate_cost("badge", 10, picks=10).rows == 10


def test_the_command(capsys, table):
    """A line for each strategy asked for, or for all; a mistake is a sentence and status 2."""
    assert main(["estimate", "--rows", "1000000", "--strategy", "ddal", "--strategy", "margin"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ddal: ")
    assert second.startswith("margin: ")
    assert main(["estimate", "--rows", "1000", "--columns", "32", "--picks", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(measured_strategies())
    assert main(["estimate", "--rows", "1000", "--table", str(table)]) == 0
    assert capsys.readouterr().out.startswith("one: ")
    assert main(["estimate", "--rows", "1000", "--strategy", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err


def test_an_estimate_does_not_wait_for_torch():
    """As listing strategies does not."""
    code = "import sys; from modal_ntk.bench import estimate_cost; estimate_cost('ddal', 10**6)"
    subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=True)
