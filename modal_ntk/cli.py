"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version

from modal_ntk import host
from modal_ntk.errors import ModalNTKError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0 on success, 1 if ``doctor --strict`` finds something wrong, 2 for anything wrong with what was asked,
        130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments) or 0
    except ModalNTKError as error:
        print(f"modal-ntk: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nmodal-ntk: interrupted; the same command goes on where this one stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modal-ntk", description="Deep active learning for modAL and skorch.")
    parser.add_argument("--version", action="version", version=f"modal-ntk {version('modal-ntk')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    strategies = commands.add_parser("strategies", help="list the installed strategies, and plugins that failed")
    strategies.add_argument("--json", action="store_true", help="print JSON")
    strategies.set_defaults(command=_strategies)

    bench = commands.add_parser("bench", help="compare strategies on a data set, resumably")
    bench.add_argument("--dataset", default="digits", metavar="NAME_OR_NPZ", help="data set (default: digits)")
    bench.add_argument(
        "--strategy",
        action="append",
        required=True,
        metavar="NAME[:KEY=VALUE,...]",
        help="strategy to compare; repeat for several",
    )
    bench.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (default: 3)")
    bench.add_argument("--initial", type=int, default=20, metavar="N", help="labels at the start (default: 20)")
    bench.add_argument("--batch", type=int, default=20, metavar="N", help="labels in each query (default: 20)")
    bench.add_argument("--rounds", type=int, default=5, metavar="N", help="number of queries (default: 5)")
    bench.add_argument(
        "--continue", dest="continued", action="store_true", help="train on from round to round, not anew each time"
    )
    bench.add_argument("--out", default="results", metavar="DIR", help="folder of the results (default: results)")
    bench.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once (default: 1)")
    bench.add_argument("--quiet", action="store_true", help="show no progress bar")
    bench.set_defaults(command=_bench)

    report = commands.add_parser("report", help="print a comparison's table and write its page")
    report.add_argument("out", metavar="DIR", help="folder of the results")
    report.add_argument("--dataset", metavar="NAME_OR_NPZ", help="its data, to show classes and images queried")
    report.add_argument("--baseline", metavar="STRATEGY", help="what to compare with (default: random_sampling)")
    report.add_argument("--target", type=float, metavar="SCORE", help="count labels to this score")
    report.set_defaults(command=_report)

    doctor = commands.add_parser("doctor", help="show versions, devices and plugins, and what is wrong with them")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument("--strict", action="store_true", help="end with status 1 if anything is wrong")
    doctor.set_defaults(command=_doctor)
    return parser


def _doctor(arguments: argparse.Namespace) -> int:
    from modal_ntk import doctor

    # A plugin that prints while it is imported must not end up inside the JSON.
    with redirect_stdout(sys.stderr):
        diagnosis = doctor.diagnose()
    print(json.dumps(diagnosis.to_dict(), indent=2) if arguments.json else diagnosis)
    return int(arguments.strict and bool(diagnosis.problems))


def _strategies(arguments: argparse.Namespace) -> None:
    with redirect_stdout(sys.stderr):
        found = host.build_host()
    if arguments.json:
        listing = [
            {
                "name": s.name,
                "summary": s.summary,
                "needs": sorted(s.needs),
                "paper": s.paper,
                "distribution": s.distribution,
                "version": s.version,
                "requires": list(s.spec.requires),
                "extra": s.spec.extra,
            }
            for s in found.strategies.values()
        ]
        failed = [
            {"name": f.name, "distribution": f.distribution, "kind": f.kind, "reason": f.reason} for f in found.failures
        ]
        disabled = [origin._asdict() for origin in found.disabled]
        print(json.dumps({"strategies": listing, "failures": failed, "disabled": disabled}, indent=2))
        return
    for s in sorted(found.strategies.values(), key=lambda s: s.name):
        print(f"{s.name}  ({s.distribution} {s.version})\n    {s.summary}")
        print(f"    needs: {', '.join(sorted(s.needs)) or 'nothing'}; from: {s.paper or 'not stated'}")
    for failure in found.failures:
        print(failure)
    for origin in found.disabled:
        print(f"{origin.name}  ({origin.distribution} {origin.version}) is disabled by {host.VARIABLE}")


def _bench(arguments: argparse.Namespace) -> None:
    # Imported here: listing strategies must not wait for torch.
    from modal_ntk import bench

    bench.run(
        arguments.dataset,
        arguments.strategy,
        out=arguments.out,
        seeds=arguments.seeds,
        n_initial=arguments.initial,
        batch_size=arguments.batch,
        n_rounds=arguments.rounds,
        reinitialise=not arguments.continued,
        jobs=arguments.jobs,
        progress=not arguments.quiet,
    )
    _print_report(arguments.out, arguments.dataset, None, None)


def _report(arguments: argparse.Namespace) -> None:
    _print_report(arguments.out, arguments.dataset, arguments.baseline, arguments.target)


def _print_report(out: str, dataset: str | None, baseline: str | None, target: float | None) -> None:
    from modal_ntk import bench

    found = bench.report(out, dataset=dataset, baseline=baseline, target=target)
    print(found.table)
    for doubt in found.doubts:
        print(f"note: {doubt}")
    print(f"report: {found.page}")
