"""For each parameter of a module, the way by which its per-sample gradients are had; each way proved on every batch.

Along with a batch a backward pass of randomly weighted outputs is made, and a route serves a parameter only if the
weighted sum of its gradients is the same. Of a plain net, whose graph shows that samples are apart and that parameters
are read where they were seen, that pass is made for a part of the samples, alone. What fails takes the next route for
this batch: factors (or BackPACK), then `torch.func`, then one sample at a time. So a layer that mixes up axes, a sample
that takes another branch, or a library that gets a layer wrong costs time and not truth. That samples do not depend on
one another shows in the same sum, and, where no gradient tells of it, in the outputs of a part of the batch on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.errors import InvalidInputError
from modal_ntk.features.capture.backpack_route import BackpackCopy
from modal_ntk.features.capture.independence import Independence
from modal_ntk.features.capture.per_sample import looped_gradients, vectorised_gradients
from modal_ntk.features.capture.proof import Draws, agree, multiplied, tolerance
from modal_ntk.features.capture.recording import Cotangents, Recording, record
from modal_ntk.features.capture.watching import Call
from modal_ntk.features.factors import Dense, Factor, n_bytes
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.reporting import let_out, warn
from modal_ntk.features.samples import Samples

FACTORED, BACKPACK, TORCH_FUNC, LOOP, NONE = "factored", "backpack", "torch.func", "loop", "none"

Maker = Callable[[FunctionalNet, Samples, Tensor, list[str]], dict[str, Tensor]]

_SPEED = (NONE, FACTORED, BACKPACK, TORCH_FUNC, LOOP)


@dataclass
class SampleGradients:
    """Per-sample gradients of one batch, by parameter, each made when asked for.

    Parameters
    ----------
    recording : Recording
        What the factored route saw.
    written : dict of str to Tensor (n, r, p)
        Gradients by the other routes.
    names : list of str
        The parameters with gradients, in the module's order; those of all others are zero.
    """

    recording: Recording
    written: dict[str, Tensor]
    names: list[str]

    def factor(self, name: str, *, joint: bool, rows: slice = slice(None)) -> Factor:
        """Return the gradients of one parameter by some samples: n rows (`joint`) or n * r."""
        if name in self.written:
            written = self.written[name][rows]
            return Dense(written.flatten(1) if joint else written.flatten(0, 1))
        return self.recording.factor(name, joint=joint, rows=rows)


class Routes:
    """The routes of a module's parameters.

    Parameters
    ----------
    net : FunctionalNet
        The module, in evaluation mode.
    x : Tensor (n, ...) or NamedTensors
        Samples; the first and the last are looked at to estimate memory.
    explicit : bool, default=False
        Whether gradients are to be written out: BackPACK where it is proved, `torch.func` elsewhere.
    verify : bool, default=True
        Whether every batch is proved, or the two samples alone.

    Attributes
    ----------
    by_name : dict of str to str
        "factored", "backpack", "torch.func", "loop", or "none" where the outputs do not depend on the parameter; of
        several batches the slowest that was taken.
    bytes_by_name : dict of str to int
        What one sample's factor of a parameter takes, of those that have factors.
    n_outputs : int
        Number of logits.
    backpack_error : str or None
        What BackPACK raised, if it was tried and could not follow the module.
    bytes_per_direction : int
        About what one weighted output of one sample takes.
    """

    def __init__(self, net: FunctionalNet, x: Samples, *, explicit: bool = False, verify: bool = True) -> None:
        if len(x) == 0:
            raise checks.expected("at least one sample", "none", "Pass a batch.")
        self.net, self.explicit, self.verify = net, explicit, True
        self.by_name: dict[str, str] = dict.fromkeys(net.parameters, NONE)
        self.bytes_by_name: dict[str, int] = {}
        self.backpack_error: str | None = None
        self._copy: BackpackCopy | None = None
        self._draws = Draws()
        self._independence = Independence(net, self._draws)
        self._sort = False
        self._failed: set[tuple[str, str]] = set()
        self._told: set[str] = set()
        self._known: set[tuple[Any, ...]] = set()
        self._layout: list[tuple[tuple[str, ...], int]] | None = None
        self._settle(x[[0, -1]])
        self.verify = verify

    def _settle(self, pair: Samples) -> None:
        # Different weights for the two tell the samples apart even where they are copies of one another.
        found = self.gradients(pair, lambda logits: self._draws.weights(len(logits), logits.shape[1], logits)[:, None])
        recording = found.recording
        self.n_outputs = recording.logits.shape[1]
        for name in found.names:
            if name not in found.written:
                self.bytes_by_name[name] = n_bytes(found.factor(name, joint=True)) // len(pair)
        if not self._sort:
            self._layout = recording.layout(set(found.names) - set(found.written))
        held = max(self.bytes_by_name.values(), default=0)
        written = sum(g.nbytes for g in found.written.values()) // len(pair)
        # Beside what is recorded, autograd keeps about as much again, and writing gradients out takes copies.
        self.bytes_per_direction = 3 * written + 2 * held + 2 * recording.n_bytes // len(pair)

    def gradients(self, batch: Samples, cotangents: Cotangents) -> SampleGradients:
        """Differentiate a batch, each parameter by the first of its routes that is right.

        Parameters
        ----------
        batch : Tensor (n, ...) or NamedTensors
            Samples.
        cotangents : Tensor (n, r, K), or callable
            Weights of the outputs, or what makes them of the logits (n, K).

        Returns
        -------
        SampleGradients
            The gradients.

        Raises
        ------
        InvalidInputError
            If outputs or gradients are not finite, samples depend on one another, or no route is right.
        """
        if not self.verify:
            return self._trusted(batch, cotangents)
        # A plain net by its graph, if a part of the samples alone bears that out.
        recording = self._recorded(batch, cotangents, lambda call: call.key in self._known)
        _check_finite(recording)
        if recording.is_plain and self._borne_out(batch, recording):
            names = [name for name in self.net.parameters if name in recording.names]
            self._note(dict.fromkeys(names, FACTORED))
            return SampleGradients(recording, {}, names)
        # Any other by numbers: the sum that the gradients by every route must have.
        if not recording.is_proof:
            recording = self._recorded(batch, recording.cotangents)
        self._independence.check(batch, recording.logits)
        # Route by route, each for the parameters that those before it left.
        work = _Batch(self, batch, recording)
        if self.explicit:
            work.try_route(BACKPACK)
        else:
            work.try_factors()
            if not self._sort and recording.seen.intersection(work.left):
                # Rows that are not where they are expected may yet be told apart, at the price of another pass.
                self._sort = True
                again = _Batch(self, batch, self._recorded(batch, recording.cotangents))
                again.try_factors()
                self._sort = len(again.left) < len(work.left)
                work = again if self._sort else work
                recording = work.recording
        work.try_route(TORCH_FUNC)
        work.loop()
        # What was learnt for the batches to come.
        self._note(work.routes)
        served = {name for name, route in work.routes.items() if route == FACTORED}
        self._known.update(recording.keys_of(served))
        return SampleGradients(recording, work.written, work.present)

    def _borne_out(self, batch: Samples, recording: Recording) -> bool:
        # What the graph shows is tried on a part of the samples, which plain backward passes know alone; rules that may
        # be wrong for some numbers alone, on all.
        whole = _Batch(self, batch, recording)
        if not all(whole.sums_up(name) for name in recording.truth):
            return False
        rows = self._draws.rows(len(batch), one_in=8)
        weights = recording.cotangents[rows]
        seen = self._independence.alone(
            lambda net, part: record(net, part, weights, weigh=self._draws.weights, watched=False), batch[rows]
        )
        self._independence.compare(batch, rows, seen.logits, recording.logits)
        part = _Batch(self, batch, recording.part(rows, seen))
        return all(part.sums_up(name) for name in part.present)

    def makers(self) -> dict[str, Maker]:
        """Return what writes gradients out, by route, the faster first."""
        return {BACKPACK: self._by_backpack, TORCH_FUNC: vectorised_gradients, LOOP: looped_gradients}

    def _note(self, taken: dict[str, str]) -> None:
        # Of what a faster route served before, warn once; one sample at a time has a warning of its own.
        fallen: dict[tuple[str, str], list[str]] = {}
        for name, route in taken.items():
            before = self.by_name[name]
            if _SPEED.index(route) > _SPEED.index(before):
                self.by_name[name] = route
                if before != NONE and route != LOOP:
                    fallen.setdefault((before, route), []).append(name)
        for (before, route), names in fallen.items():
            what = f"The route {before!r} of {', '.join(names)} is not right on every batch"
            warn(f"{what}: there {route!r} is taken.")

    def names(self) -> list[str]:
        """Return the parameters that had gradients in some batch, in the module's order."""
        return [name for name in self.net.parameters if self.by_name[name] != NONE]

    def _recorded(
        self, batch: Samples, cotangents: Cotangents, known: Callable[[Call], bool] | None = None
    ) -> Recording:
        known = None if self._sort or self.explicit or len(batch) == 1 else known
        options = {"weigh": self._draws.weights, "watched": not self.explicit, "sort": self._sort, "known": known}
        return record(self.net, batch, cotangents, **options)  # type: ignore[arg-type]

    def _trusted(self, batch: Samples, cotangents: Cotangents) -> SampleGradients:
        # As settled on two samples.
        by_route = {r: [n for n, route in self.by_name.items() if route == r] for r in _SPEED}
        weigh = self._draws.weights if self._sort else None
        recording = record(self.net, batch, cotangents, weigh=weigh, watched=bool(by_route[FACTORED]), sort=self._sort)
        if self._layout is not None and recording.layout(set(by_route[FACTORED])) != self._layout:
            remedy = "Leave verify=True, or use a module that does the same for every batch."
            raise checks.expected("the same layers called for every batch", "others than for the first", remedy)
        written: dict[str, Tensor] = {}
        for route, make in self.makers().items():
            if by_route[route]:
                written.update(make(self.net, batch, recording.cotangents, by_route[route]))
        return SampleGradients(recording, written, self.names())

    def _by_backpack(
        self, net: FunctionalNet, batch: Samples, cotangents: Tensor, names: list[str]
    ) -> dict[str, Tensor]:
        try:
            if net.complex:
                raise TypeError("complex parameters")
            if self._copy is None:
                self._copy = BackpackCopy(net, batch)
            found = self._copy.gradients(batch, cotangents)
        except (RuntimeError, AttributeError, TypeError, ValueError) as error:
            let_out(error)
            # What BackPACK raises on a module that it cannot follow; `torch.func` then serves all of it.
            self.backpack_error = f"{type(error).__name__}: {error}"
            return {}
        return {name: found[name].to(net.held_dtype) for name in names if name in found}


class _Batch:
    # One batch on its way through the routes: what is left has not been served by any so far.
    def __init__(self, routes: Routes, batch: Samples, recording: Recording) -> None:
        self.parent, self.net, self.batch, self.recording = routes, routes.net, batch, recording
        self.written: dict[str, Tensor] = {}
        self.routes: dict[str, str] = {}
        self.reason = "it failed on an earlier batch"
        self.norms = {name: float(g.norm()) for name, g in recording.truth.items()}
        self.scale = 0.01 * sum(norm**2 for norm in self.norms.values()) ** 0.5
        self.dtype = max((recording.coarsest, self.net.dtype), key=tolerance)
        self.present = [name for name in self.net.parameters if self.norms.get(name, 0.0) > 0]
        self.left = self.present

    def try_factors(self) -> None:
        self.routes.update({name: FACTORED for name in self.present if self.sums_up(name)})
        self.left = [name for name in self.present if name not in self.routes]

    def sums_up(self, name: str) -> bool:
        # Whether a parameter's gradients by factors have the sum that they should have.
        if name not in self.recording.names:
            return False
        truth = self.recording.truth[name]
        pairs = self.parent._draws.pairs(self.net.parameters[name].shape, truth)
        got = self.recording.projected(name, pairs)
        return agree(got, multiplied(truth, pairs), self.norms[name] + self.scale, self.dtype)

    def try_route(self, route: str) -> None:
        wanted = [name for name in self.left if (name, route) not in self.parent._failed]
        if not wanted:
            return
        try:
            found = self.parent.makers()[route](self.net, self.batch, self.recording.cotangents, wanted)
        except InvalidInputError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            let_out(error)
            found, self.reason = {}, f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            self.reason = "it gives other gradients than autograd there"
        wrong = [name for name in wanted if name not in found or not self._right(name, found[name])]
        forgiven = self._right_in_float64(route, [name for name in wrong if name in found])
        for name in wanted:
            if name not in wrong or name in forgiven:
                self.written[name], self.routes[name] = found[name], route
            else:
                self.parent._failed.add((name, route))
        self.left = [name for name in self.left if name not in self.routes]

    def _right(self, name: str, gradients: Tensor, recording: Recording | None = None) -> bool:
        seen = recording or self.recording
        weights, truth = seen.weights, seen.truth.get(name)
        assert weights is not None  # every proof draws them
        if gradients.shape[:2] != weights.shape:
            return False
        got = torch.einsum("nr,nrp->p", weights.to(gradients.dtype), gradients)
        want = torch.zeros_like(got) if truth is None else truth.flatten()
        size = float(want.norm()) + self.scale
        dtype = self.dtype if recording is None else torch.float64
        return bool(((got - want).norm() <= tolerance(dtype) * size).item())

    def _right_in_float64(self, route: str, names: list[str]) -> set[str]:
        # A rectifier near zero may go one way in one pass and the other in another: that is rounding, and no error.
        if not names or route == BACKPACK or self.net.dtype == torch.float64:
            return set()
        net = self.parent._independence.exact_net
        try:
            batch, weights = net.batch(self.batch), self.recording.cotangents.double()
            recording = record(net, batch, weights, weigh=self.parent._draws.weights, watched=False)
            found = self.parent.makers()[route](net, batch, weights, names)
        except (RuntimeError, ValueError, TypeError) as error:
            let_out(error)
            return set()
        return {name for name in names if self._right(name, found[name], recording)}

    def loop(self) -> None:
        # The last route, by definition right: where it is not, there are no per-sample gradients.
        names, reason = self.left, self.reason
        self.try_route(LOOP)
        if self.left:
            remedy = "Look for normalisation over the batch, random numbers, and gradients changed on their way."
            what = f"gradients by {', '.join(self.left)} that are the same for a sample alone and in a batch"
            raise checks.expected(what, "others, by every route", remedy)
        untold = [name for name in names if name not in self.parent._told]
        self.parent._told.update(untold)
        if untold:
            warn(f"torch.func cannot batch {', '.join(untold)} ({reason}): one sample at a time, which is slow.")


def _check_finite(recording: Recording) -> None:
    remedy = "Drop samples that are not finite; in half precision, pass dtype=torch.float32."
    if not bool(recording.logits.isfinite().all()):
        rows = (~recording.logits.isfinite().all(1)).nonzero()[:, 0].tolist()
        raise checks.expected("finite outputs", f"others for samples {rows[:5]} of a batch", remedy)
    wrong = [name for name, g in recording.truth.items() if not bool(g.isfinite().all())]
    if not recording.is_finite and recording.is_plain:
        wrong = sorted(recording.names)
    if wrong:
        raise checks.expected(f"finite gradients by {', '.join(wrong[:5])}", "others", remedy)
