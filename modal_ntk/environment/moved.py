"""Modules under the names they had in an earlier version: what a pickle, or an entry point of one, still asks for."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Where modules of 0.1.0 went; each kept its own name.
_ROOMS = {
    "commands": "doctor listing scaffold",
    "environment": "compatibility",
    "features.capture": "arithmetic backpack_route independence layers per_sample pooling proof "
    "recording routes watching",
    "nets.reading": "dropout logits outputs view",
    "nets.waal": "adversarial critic_parts critic_training distances pairing schedule",
    "selection.ahead": "changes compiled deferred diffused engines lookahead",
    "strategies.baselines.scores": "bald deepfool entropy least_confidence margin uncertainty",
    "structure.graphs": "diffusion graph hops neighbors reuse",
    "strategies.common": "gate kernel_query rows",
    "strategies.wrappers": "candidate_subset sharding switch wrapping",
    "bench.analysis": "scoring significance statistics",
    "bench.experiment": "archives datasets estimators naming protocol splits",
    "bench.loop": "memory rounds simulation stopping",
    "bench.reports": "across figures page queried reporting sections",
    "bench.running": "progress runner verification workers",
    "bench.storage": "commits manifest store storefile",
}

MOVED = {
    f"modal_ntk.{room}".rpartition(".")[0] + f".{name}": f"modal_ntk.{room}.{name}"
    for room, names in _ROOMS.items()
    for name in names.split()
} | {
    "modal_ntk.bench.probing": "modal_ntk.bench.running.plan",
    "modal_ntk.labeling.fingerprints": "modal_ntk.labeling.record",
    "modal_ntk.nets.inputs": "modal_ntk.nets.reading.logits",
    "modal_ntk.strategies.calibration": "modal_ntk.strategies.baselines.calibration",
}
"""Present name of a module by its former one."""


class _Forwarder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        return importlib.util.spec_from_loader(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        # The import system hands out what stands in sys.modules, so that both names are one module.
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


def forward() -> None:
    """Let former names of modules be imported, from now on."""
    if not any(isinstance(finder, _Forwarder) for finder in sys.meta_path):
        sys.meta_path.append(_Forwarder())
