"""The cost of a report of 2,000 runs: seconds to build it, and megabytes of the page.

    python -m asv_bench.report [--runs 2000] [--rows 50]

The runs are synthetic: 20 arms, each compared with the first, with curves of random numbers that
compress no better than real ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from asv_bench.benchmarks.synthetic import TWENTY, folder_to_report
from bdhf.records import collect
from bdhf.report import build


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the seconds and the megabytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=50)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder_to_report(Path(temporary) / "results", chosen.runs, chosen.rows)
        begun = time.perf_counter()
        collect(folder)
        collected = time.perf_counter()
        _, path = build(folder)
        built = time.perf_counter()
        size = path.stat().st_size / 1e6
    sys.stdout.write(
        f"{chosen.runs} runs of {chosen.rows} evaluations, {len(TWENTY)} arms: collect "
        f"{collected - begun:.1f} s, report {built - collected:.1f} s, {size:.1f} MB\n"
    )


if __name__ == "__main__":
    main()
