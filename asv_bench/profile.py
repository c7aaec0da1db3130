"""The parts of an update's time: products, the solver's vectors, set-up, acceptance.

    python -m asv_bench.profile

A stopwatch wraps the calls of an update. A call is charged its time without watched calls within
it, so the shares add up to 1. (Run it with -m only: a directory on Python's path must not contain a
module with the name of the standard library's `profile`.)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

import bdhf
from asv_bench.adapter import DAMPING, ITERATIONS, LR
from asv_bench.timing import Spread, seconds
from asv_bench.workloads import WORKLOADS, Workload
from bdhf.optim.products import BlockProduct
from bdhf.optim.update.candidates import CandidateSteps

#: A watched call: a method of a class, or a function of a module, by name.
Part = tuple[object, str]

#: Part of an update -> its methods.
PARTS: Mapping[str, Sequence[Part]] = {
    "products": [(BlockProduct, "__call__")],
    "solver's vectors": [(bdhf.CG, "solve")],
    "set-up": [(bdhf.BlockHessianFree, "_linearise")],
    "acceptance": [(CandidateSteps, "loss_at"), (CandidateSteps, "predicted")],
    "other": [(bdhf.BlockHessianFree, "step")],
}

#: Workload -> the partitions whose updates are profiled.
UPDATES: Mapping[str, Sequence[str]] = {
    "autoencoder": ("full", "halves", "layers"),
    "classifier": ("neurons",),
    "resnet": ("full", "blocks"),
    "lstm": ("full", "blocks"),
}


class Stopwatch:
    """Seconds of watched calls by part, without watched calls within them."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._within = [0.0]  # for every open call, the seconds of calls within it

    def watched(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, charged to a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._within.append(0.0)
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                taken = time.perf_counter() - start
                own = taken - self._within.pop()
                self._within[-1] += taken
                self.spent[part] = self.spent.get(part, 0.0) + own

        return timed


@contextmanager
def watching(parts: Mapping[str, Sequence[Part]] = PARTS) -> Iterator[Stopwatch]:
    """Watch these parts in the body."""
    watch = Stopwatch()
    with ExitStack() as patches:
        for part, calls in parts.items():
            for owner, name in calls:
                call = watch.watched(part, getattr(owner, name))
                patches.enter_context(patch.object(owner, name, call))
        yield watch


def shares(workload: Workload, partition: str, updates: int) -> Mapping[str, Spread]:
    """Share of every part in an update, and under "update" its length in gradients."""
    moved = workload.copy()
    optimizer = bdhf.BlockHessianFree(
        moved.model, moved.loss, partition=workload.partitions[partition], lr=LR, check=False,
        solver=bdhf.CG(max_iters=ITERATIONS, tol=0.0, warm_start=0.0),
        damping=bdhf.Constant(DAMPING),
    )  # fmt: skip
    optimizer.step(workload.batch)  # makes the choices of a run
    workload.gradient()
    samples: dict[str, list[float]] = {}
    for _ in range(updates):
        unit = statistics.median(seconds(workload.gradient) for _ in range(5))
        with watching() as watch:
            optimizer.step(workload.batch)
        whole = sum(watch.spent.values())
        parts = {part: watch.spent.get(part, 0.0) / whole for part in PARTS}
        for part, value in {"update": whole / unit, **parts}.items():
            samples.setdefault(part, []).append(value)
    return {part: Spread.of(values) for part, values in samples.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line for every profiled update."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", choices=list(UPDATES), default=list(UPDATES))
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny models, as a test")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    heading = ["update", "gradients", *PARTS]
    lines = [heading, ["---"] * len(heading)]
    for name in arguments.workloads:
        workload = WORKLOADS[name](arguments.quick)
        for partition in UPDATES[name]:
            spreads = dict(shares(workload, partition, arguments.updates))
            update = spreads.pop("update")
            parts = [f"{100 * spreads[part].median:.1f} %" for part in PARTS]
            lines.append([f"{name}, {partition}", f"{update.median:.3g}", *parts])
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    main()
