"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from modal_ntk import bench, checks, host
from modal_ntk.bench.analysis.cost import USUAL
from modal_ntk.bench.reports import across, figures
from modal_ntk.bench.running.termination import terminating
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.commands import doctor, listing, scaffold
from modal_ntk.errors import IncompleteRunError, ModalNTKError

if TYPE_CHECKING:
    from modal_ntk.bench import Protocol, Workers

# What `bench` asks for by options, under the names that a protocol has for it.
_ASKED = ("dataset", "strategies", "seeds", "n_initial", "batch_size", "n_rounds", "reinitialise")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0 on success, 1 if ``doctor --strict`` or ``--json`` finds something wrong or ``verify`` a difference, 2 for
        anything wrong with what was asked or runs that could not be run, 130 after Ctrl-C; SIGTERM exits with 143.
    """
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return 2
    arguments = parser.parse_args(argv)
    try:
        return arguments.command(arguments) or 0
    except ModalNTKError as error:
        print(f"modal-ntk: error: {_printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nmodal-ntk: interrupted; the same command goes on where this one stopped.", file=sys.stderr)
        return 130


def _printable(text: object) -> str:
    # Whatever names and values come along, a terminal obeys none of them.
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in str(text).split("\n"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modal-ntk", description="Deep active learning for modAL and skorch.")
    parser.add_argument("--version", action="version", version=f"modal-ntk {version('modal-ntk')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable[[argparse.Namespace], int | None], words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=words)
        added.set_defaults(command=function)
        return added

    strategies = command("strategies", _strategies, "list the installed strategies, and plugins that failed")
    strategies.add_argument("name", nargs="?", metavar="NAME", help="show one with its parameters")
    strategies.add_argument("--json", action="store_true", help="print JSON")

    plugin = command("new-plugin", _new_plugin, "write a plugin of your own from the template")
    plugin.add_argument("name", metavar="NAME", help="what users will ask for, such as my_margin")
    plugin.add_argument("--out", metavar="DIR", help="folder to write (default: modal-ntk-NAME)")

    compare = command("bench", _bench, "compare strategies on a data set, resumably")
    compare.add_argument(
        "protocol", nargs="?", metavar="FILE.toml", help="a protocol, in place of the options up to --out"
    )
    compare.add_argument("--dataset", metavar="NAME_OR_NPZ", help="data set (default: digits)")
    compare.add_argument(
        "--strategy",
        action="append",
        dest="strategies",
        metavar="NAME[:KEY=VALUE,...]",
        help="strategy to compare; repeat for several",
    )
    compare.add_argument("--seeds", type=int, metavar="N", help="number of seeds (default: 3)")
    compare.add_argument("--initial", dest="n_initial", type=int, metavar="N", help="labels at the start (default: 20)")
    compare.add_argument("--batch", dest="batch_size", type=int, metavar="N", help="labels in each query (default: 20)")
    compare.add_argument("--rounds", dest="n_rounds", type=int, metavar="N", help="number of queries (default: 5)")
    compare.add_argument(
        "--continue",
        dest="reinitialise",
        action="store_false",
        default=None,
        help="train on from round to round, not anew each time",
    )
    compare.add_argument("--out", default="results", metavar="DIR", help="folder of the results (default: results)")
    compare.add_argument(
        "--store", metavar="URL", help="postgresql://..., where processes on several machines with the same --out meet"
    )
    _add_workers(compare)
    shown = compare.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="show no progress")
    shown.add_argument("--plain", action="store_true", help="show progress by lines, as when stderr is no terminal")

    report = command("report", _report, "print a comparison's table and write its page")
    report.add_argument(
        "out",
        metavar="DIR",
        nargs="+",
        help="folder of the results, or of several such folders; of several data sets also what they say together",
    )
    report.add_argument("--dataset", metavar="NAME_OR_NPZ", help="its data, to show classes and images queried")
    report.add_argument("--baseline", metavar="STRATEGY", help="what to compare with (default: random_sampling)")
    report.add_argument("--target", type=float, metavar="SCORE", help="count labels to this score")

    verify = command("verify", _verify, "run cells of a comparison again and compare")
    verify.add_argument("out", metavar="DIR", help="folder of the results")
    verify.add_argument("--cells", type=int, default=1, metavar="N", help="how many, drawn at random (default: 1)")
    verify.add_argument(
        "--tolerance", type=float, default=0.0, metavar="X", help="difference of scores that is none (default: 0)"
    )
    verify.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draw (default: 0)")
    verify.add_argument(
        "--protocol", metavar="FILE.toml", help="the study's file, which says what is trained if that is not built in"
    )
    verify.add_argument("--run-estimator", metavar="MODULE:NAME", help="import and call this, which the results name")
    _add_workers(verify)

    costs = "say what a query will cost: seconds on one core, memory at the peak"
    estimate = command("estimate", _estimate, costs)
    estimate.add_argument("--rows", type=int, required=True, metavar="N", help="samples in the pool")
    estimate.add_argument(
        "--strategy", action="append", metavar="NAME", help="repeat for several (default: all that were measured)"
    )
    meanings = ("numbers in a sample", "samples asked for", "outputs of the net", "labelled samples")
    for (name, usual), meaning in zip(USUAL.items(), meanings, strict=True):
        words = f"{meaning} (default: {usual})"
        estimate.add_argument(f"--{name}", type=int, default=usual, metavar="N", help=words)
    estimate.add_argument(
        "--table", metavar="FILE.csv", help="measured elsewhere (default: what comes with the package)"
    )

    doctor = command("doctor", _doctor, "show versions, devices and plugins, and what is wrong with them")
    doctor.add_argument("--json", action="store_true", help="print JSON, and end with status 1 if its ok is false")
    doctor.add_argument("--strict", action="store_true", help="end with status 1 if anything is wrong")
    return parser


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once (default: 1)")
    parser.add_argument("--backend", default="loky", metavar="NAME", help="loky, dask or ray (default: loky)")
    parser.add_argument("--address", metavar="URL", help="of a running cluster (default: workers on this machine)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each run (default: 1)")
    parser.add_argument(
        "--device", action="append", metavar="NAME", help="such as cuda:0; repeat for several, one for each worker"
    )


def _doctor(arguments: argparse.Namespace) -> int:
    # A plugin that prints while it is imported must not end up inside the JSON.
    with redirect_stdout(sys.stderr):
        diagnosis = doctor.diagnose()
    print(json.dumps(diagnosis.to_dict(), indent=2) if arguments.json else diagnosis)
    return int((arguments.strict or arguments.json) and bool(diagnosis.problems))


def _estimate(arguments: argparse.Namespace) -> None:
    asked = {name: getattr(arguments, name) for name in ("rows", *USUAL)}
    table = {} if arguments.table is None else {"table": arguments.table}
    machine = bench.Speed.measured()
    names = arguments.strategy or bench.measured_strategies(**table)
    print(*(bench.estimate_cost(name, machine=machine, **asked, **table) for name in names), sep="\n")


def _strategies(arguments: argparse.Namespace) -> None:
    with redirect_stdout(sys.stderr):
        found = host.build_host()
    if arguments.name is not None:
        found.get(arguments.name)  # a name that is not there, or whose plugin failed, is explained
        print(_printable(listing.described(found.strategies[arguments.name])))
    elif arguments.json:
        print(json.dumps(listing.as_data(found), indent=2))
    else:
        print(listing.as_text(found))


def _new_plugin(arguments: argparse.Namespace) -> None:
    folder = scaffold.new_plugin(arguments.name, arguments.out)
    print(f"Written: {folder}. Install it so that it follows your edits, and run its tests:")
    print(f'    cd "{folder}" && pip install -e ".[test]" && pytest')


@terminating()
def _bench(arguments: argparse.Namespace) -> None:
    # Imported here: listing strategies must not wait for torch.
    from modal_ntk.bench.running.plan import Plan

    progress = "plain" if arguments.plain else not arguments.quiet
    protocols = _protocols(arguments)
    for protocol in list(protocols.values())[1:]:
        Plan.of(protocol)  # what the last one lacks is said before the first one runs
    if not figures.can_draw():
        print(f"modal-ntk: note: {figures.NO_PICTURES}", file=sys.stderr)
    incomplete = []
    for dataset, protocol in protocols.items():
        out = Path(arguments.out) / dataset if len(protocols) > 1 else Path(arguments.out)
        try:
            bench.run_protocol(protocol, out=out, workers=_workers(arguments), progress=progress, store=arguments.store)
        except IncompleteRunError as error:
            incomplete.append(str(error))
            if not (out / FILE_NAME).exists() or not Store.open(out).finished():
                continue
        _print_report(out, arguments.dataset, None, None)
    if len(protocols) > 1 and not incomplete:
        _print_across([Path(arguments.out) / dataset for dataset in protocols], Path(arguments.out))
    if incomplete:
        raise IncompleteRunError("\n".join(incomplete))


def _protocols(arguments: argparse.Namespace) -> dict[str, Protocol]:
    given = {name: getattr(arguments, name) for name in _ASKED if getattr(arguments, name) is not None}
    if arguments.protocol is None:
        if "strategies" not in given:
            remedy = "For example: --strategy ntkcpl --strategy random_sampling. `modal-ntk strategies` lists them."
            raise checks.expected("at least one --strategy, or a protocol's file", "none", remedy)
        protocol = bench.Protocol.from_dict(given)
        return {protocol.dataset: protocol}
    if given:
        raise checks.expected(
            "a protocol from a file or from options, not from both",
            f"{arguments.protocol} and {', '.join(sorted(given))}",
            "Write all of it into the file.",
        )
    return _read(arguments.protocol)


def _read(path: str) -> dict[str, Protocol]:
    # As for a script, what lies beside the file can be imported: there an estimator's factory is at home.
    sys.path.insert(0, str(Path(path).resolve().parent))
    return bench.Protocol.all_from_toml(path)


def _workers(arguments: argparse.Namespace) -> Workers:
    return bench.Workers(
        jobs=arguments.jobs,
        backend=arguments.backend,
        address=arguments.address,
        threads=arguments.threads,
        devices=tuple(arguments.device or ()),
    )


def _verify(arguments: argparse.Namespace) -> int:
    protocol = None
    if arguments.protocol is not None:
        protocols = _read(arguments.protocol)
        of, folder = str(Store.open(arguments.out).protocol().get("dataset")), Path(arguments.out).resolve().name
        name = folder if folder in protocols else of
        if name not in protocols:
            remedy = f"It holds {', '.join(protocols)}."
            raise checks.expected(f"a protocol of {checks.one_line(name)!r} in {arguments.protocol}", "none", remedy)
        protocol = protocols[name]
    elif arguments.run_estimator is not None:
        sys.path.insert(0, str(Path.cwd()))  # where an estimator's factory may be, as for `python -m`
    found = bench.verify(
        arguments.out,
        protocol=protocol,
        run_estimator=arguments.run_estimator,
        cells=arguments.cells,
        tolerance=arguments.tolerance,
        random_state=arguments.seed,
        workers=_workers(arguments),
    )
    print(found)
    return int(bool(found.differences))


@terminating()
def _report(arguments: argparse.Namespace) -> None:
    folders = [folder for out in arguments.out for folder in _comparisons(Path(out))]
    for folder in folders:
        _print_report(folder, arguments.dataset, arguments.baseline, arguments.target)
    if len(folders) > 1:
        _print_across(folders, Path(os.path.commonpath([folder.resolve() for folder in folders])))


def _comparisons(out: Path) -> list[Path]:
    inside = sorted(path.parent for path in out.glob(f"*/{FILE_NAME}"))
    return inside if inside and not (out / FILE_NAME).is_file() else [out]


def _print_across(folders: list[Path], out: Path) -> None:
    found = across.report_across(folders, out)
    print(f"{found.table}\n(by data set: mean {found.metric} over all labels)")
    print(f"report: {out / across.PAGE}")


def _print_report(out: Path, dataset: str | None, baseline: str | None, target: float | None) -> None:
    found = bench.report(out, dataset=dataset, baseline=baseline, target=target)
    print(found.table)
    for doubt in found.doubts:
        print(f"note: {doubt}")
    print(f"report: {found.page}")
