"""The cost of reading a results folder: seconds of `planned`, `collect` and `load`.

    python -m asv_bench.collect

The folders are synthetic: one in which every run has ended, and a plan without runs.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow

import bdhf
from asv_bench.benchmarks.synthetic import folder_to_read
from bdhf.records import collect, planned


def main(argv: Sequence[str] | None = None) -> None:
    """Make the folders and print the seconds of every reader, each timed once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="runs that have ended")
    parser.add_argument("--rows", type=int, default=50, help="rows of every curve")
    parser.add_argument("--cells", type=int, default=10_000, help="cells of the plan without runs")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        runs, cells = arguments.runs, arguments.cells
        ended = folder_to_read(Path(temporary) / "ended", runs, runs, arguments.rows)
        empty = folder_to_read(Path(temporary) / "empty", cells, 0, 0)
        for name, folder in (f"{runs} runs that have ended", ended), (f"{cells} cells", empty):
            sys.stdout.write(f"{name}:\n")
            for reader in planned, collect, bdhf.load:
                start = time.perf_counter()
                reader(folder)
                took = time.perf_counter() - start
                sys.stdout.write(f"  {reader.__name__:<8} {took:.2f} s\n")
    sys.stdout.write(
        f"curves of {arguments.rows} rows; Python {platform.python_version()}, "
        f"pandas {pd.__version__}, pyarrow {pyarrow.__version__}\n"
    )


if __name__ == "__main__":
    main()
