"""What planning costs: an ablation of ten thousand cells, expanded and listed.

    python -m asv_bench.plan

Three arms, a grid over two learning rates and dampings and the curvature batch, and ten seeds. What
Python imports on the way is done before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.experiments.plan import expand
from bdhf.experiments.source import parse
from bdhf.experiments.spec import variants

#: Seconds that a plan of ten thousand cells may take.
BAR = 2.0

SPEC = """\
schema: 1
name: many
problem: {{type: autoencoder, encoder: [784, 12, 4]}}
batch: {{gradient: 200, curvature: 50}}
arms:
  adam: {{type: torch.Adam, lr: 3.0e-3}}
  full_hf: &hf {{type: block_hf, partition: full, lr: 0.5, damping: 1.0e-2}}
  block_hf: {{<<: *hf, partition: groups}}
grid:
  arms.full_hf.lr: {rates}
  arms.full_hf.damping: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
  batch.curvature: [25, 50, 100, 150]
seeds: {{count: 10}}
budget: {{updates: 6}}
targets: [{{metric: val_loss, below: 0.08}}]
compare: [{{name: block vs full, candidate: block_hf, baseline: full_hf}}]
"""


def spec_of(rates: int) -> str:
    """A spec with 400 cells for every learning rate, and 50 beside."""
    return SPEC.format(rates=[round(0.01 * (rate + 1), 2) for rate in range(rates)])


def main(given: Sequence[str] | None = None) -> None:
    """Print the seconds of expanding and of listing, and the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=int, default=25, help="400 cells each")
    rates = parser.parse_args(given).rates
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
        f"expanded and listed by `bdhf plan` in {listed:.2f} s (bar: {BAR:g} s)\n"
    )


if __name__ == "__main__":
    main()
