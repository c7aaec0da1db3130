"""The overhead of the training loop: its share of a run's wall-clock.

    python -m asv_bench.overhead

    rest = wall-clock - updates - evaluations - work done once

One run of every arm of a spec, with one seed, in this process. The rest is taking batches, counting
and recording; the work done once is loading data, building the model and checking the products.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asv_bench.profile import Part, watching
from bdhf.experiments.plan.expand import expand
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run import execute
from bdhf.experiments.run.training import Training
from bdhf.experiments.run.updaters import BlockUpdater, TorchUpdater
from bdhf.experiments.spec.load import load_spec
from bdhf.experiments.spec.schema import Safety

QUICKSTART = Path(__file__).parents[1] / "ablations" / "quickstart.yaml"

#: Largest acceptable share of the rest in a run's wall-clock.
BAR = 0.02

#: Part of a run -> the calls in which it happens.
PARTS: Mapping[str, Sequence[Part]] = {
    "updates": [(BlockUpdater, "step"), (TorchUpdater, "step")],
    "evaluations": [(Training, "_look")],
    "once": [(Training, "__init__"), (BlockUpdater, "check"), (TorchUpdater, "check")],
    "rest": [(execute, "execute")],
}


@dataclass(frozen=True)
class Spending:
    """The parts of a run's wall-clock, in seconds."""

    updates: int  # made in the run
    wall_clock: float
    parts: Mapping[str, float]  # by the keys of PARTS

    @property
    def share(self) -> float:
        """The share of the rest."""
        return self.parts["rest"] / self.wall_clock


def spending(spec: RunSpec) -> Spending:
    """Make a run on the CPU, and measure its parts."""
    with watching(PARTS) as watch:
        start = time.perf_counter()
        outcome = execute.execute(spec, device="cpu", safety=Safety(seconds=600))
        wall_clock = time.perf_counter() - start
    parts = {part: watch.spent.get(part, 0.0) for part in PARTS}
    return Spending(int(outcome.curve["update"].iloc[-1]), wall_clock, parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line for each arm, and the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", nargs="?", type=Path, default=QUICKSTART)
    arguments = parser.parse_args(argv)
    plan = expand(load_spec(arguments.spec)[0])
    heading = ["arm", "updates made", "wall-clock", *PARTS, "share of the rest"]
    lines = [heading, ["---"] * len(heading)]
    for arm in plan.arms:
        spent = spending(next(cell.run for cell in plan.cells if cell.arm == arm.label))
        seconds = [f"{value:.3f} s" for value in (spent.wall_clock, *spent.parts.values())]
        lines.append([arm.label, str(spent.updates), *seconds, f"{100 * spent.share:.2f} %"])
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
    sys.stdout.write(f"\nThe limit of the rest is {100 * BAR:g} %.\n")


if __name__ == "__main__":
    main()
