"""The cost of planning: an ablation of ten thousand cells, expanded and listed.

    python -m asv_bench.plan

Three arms, a grid over two learning rates and dampings and the curvature batch, and ten seeds. All
imports are done before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from typer.testing import CliRunner

from asv_bench.benchmarks.synthetic import spec_of
from bdhf.cli import app
from bdhf.experiments.plan.expand import expand
from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.yaml_source import parse

#: Largest acceptable seconds for a plan of ten thousand cells.
BAR = 2.0


def main(argv: Sequence[str] | None = None) -> None:
    """Print the seconds of expanding and of listing, and the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=int, default=25, help="400 cells each")
    rates = parser.parse_args(argv).rates
    expand(variants(parse(spec_of(1))))  # imports
    start = time.perf_counter()
    plan = expand(variants(parse(spec_of(rates))))
    expanded = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spec.yaml"
        file.write_text(spec_of(rates), encoding="utf-8")
        start = time.perf_counter()
        done = CliRunner().invoke(app, ["plan", str(file), "--out", str(Path(folder) / "out")])
        listed = time.perf_counter() - start
    if done.exit_code:
        raise RuntimeError(done.output)
    sys.stdout.write(
        f"{len(plan.cells)} cells of {len(plan.arms)} arms: expanded in {expanded:.2f} s; "
        f"expanded and listed by `bdhf plan` in {listed:.2f} s (limit: {BAR:g} s)\n"
    )


if __name__ == "__main__":
    main()
