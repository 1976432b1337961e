"""The tables and the picture of growth in docs/guides/scaling.md: printed, or written with ``--write``.

python tests/docs/growth_page.py [--write]

Reads the table that ships with the package, and what was measured beside it to judge the estimate
(examples/reproduce/results/growth_held_out.csv). ``tests/docs/test_growth_page.py`` holds the page in step.
"""

import argparse
from pathlib import Path

from modal_ntk.bench import Speed, estimate_cost, measured_strategies
from modal_ntk.bench.analysis.cost import USUAL, read_table

ROOT = Path(__file__).parents[2]
PAGE, PICTURE = ROOT / "docs" / "guides" / "scaling.md", ROOT / "docs" / "images" / "growth.png"
HELD_OUT = ROOT / "examples" / "reproduce" / "results" / "growth_held_out.csv"
MARKS = {name: (f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->") for name in ("growth", "held out")}


def usual(lines):
    return [line for line in lines if all(int(line[side]) == value for side, value in USUAL.items())]


def point_of(line):
    return (line["strategy"], *(int(line[key]) for key in ("rows", *USUAL)))


def measures(lines, name):
    """Return a strategy's queries by what was asked."""
    return {point_of(line)[1:]: line for line in lines if line["strategy"] == name}


def in_words(point):
    rows, *sides = point
    varied = [f"{value} {side}" for (side, least), value in zip(USUAL.items(), sides, strict=True) if value != least]
    return ", ".join([f"{rows:,} rows", *varied])


def as_table(head, lines):
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines]) + "\n"


def short(seconds):
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def growth(lines):
    """Seconds and GiB by powers of ten of rows, and both exponents."""
    found = {int(line["rows"]) for line in usual(lines)}
    sizes = [n for n in (1_000, 10_000, 100_000, 1_000_000) if n in found]
    rows = []
    for name in measured_strategies():
        own = measures(usual(lines), name)
        cells = []
        for n in sizes:
            line = own.get((n, *USUAL.values()))
            found = line and not line["error"]
            gib = int(line["peak_bytes"]) / 2**30 if found else 0
            cells.append(f"{short(float(line['seconds']))} s, {gib:.2f}" if found else (line["error"] if line else ""))
        cost = estimate_cost(name, sizes[-1], machine=Speed(1.0, 1.0))
        rows.append([f"`{name}`", *cells, f"{cost.exponent:.2f}", f"{cost.work_exponent:.2f}"])
    return as_table(["strategy", *(f"{n:,} rows" for n in sizes), "seconds", "memory"], rows)


def ratios(line):
    """Return estimated over measured: seconds, on the machine as it was then, and peak memory."""
    asked = {side: int(line[side]) for side in USUAL}
    machine = Speed(*(float(line[what]) for what in Speed._fields))
    cost = estimate_cost(line["strategy"], int(line["rows"]), **asked, machine=machine)
    return cost.seconds / float(line["seconds"]), cost.peak / int(line["peak_bytes"])


def held_out(lines):
    """Estimated over measured, seconds and peak memory, for queries that the estimate has not seen."""
    good = [line for line in lines if not line["error"]]
    points = sorted({point_of(line)[1:] for line in good})
    rows = []
    for name in measured_strategies():
        own = measures(good, name)
        found = [ratios(own[point]) if point in own else None for point in points]
        rows.append([f"`{name}`", *(f"{pair[0]:.2f}, {pair[1]:.2f}" if pair else "" for pair in found)])
    return as_table(["strategy", *map(in_words, points)], rows)


def tables():
    return {"growth": growth(read_table()), "held out": held_out(read_table(HELD_OUT))}


def draw(lines):
    """Seconds over rows, one small picture for each strategy, the others behind it in grey."""
    import matplotlib.pyplot as plt

    names = measured_strategies()
    curves = {}
    for name in names:
        own = sorted((point[0], line) for point, line in measures(usual(lines), name).items() if not line["error"])
        curves[name] = ([n for n, _ in own], [float(line["seconds"]) for _, line in own])
    columns = 6
    figure, grid = plt.subplots(-(-len(names) // columns), columns, figsize=(11, 7.4), sharex=True, sharey=True)
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, names, strict=False):
        axes.set_visible(True)
        for other in names:
            axes.loglog(*curves[other], color="0.85", linewidth=0.8)
        axes.loglog(*curves[name], color="tab:blue", marker="o", markersize=3)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    figure.supxlabel("rows of the pool")
    figure.supylabel("seconds on one core")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    found = tables()
    if not parser.parse_args().write:
        print("\n".join(found.values()))
        return
    text = PAGE.read_text(encoding="utf-8")
    for name, (begin, end) in MARKS.items():
        before, _, rest = text.partition(begin)
        text = before + begin + found[name] + end + rest.partition(end)[2]
    PAGE.write_text(text, encoding="utf-8")
    draw(read_table())


if __name__ == "__main__":
    main()
