"""The command line: parse, call one function, print.

Exit codes: 0 done, 1 a run failed, a report differs or another spec was run meanwhile, 2 a bad
spec, command line or folder, 130 interrupted.
"""

from bdhf.cli import ablation, bench, compare, parts, results, tune, verify
from bdhf.cli.app import app

__all__ = ["ablation", "app", "bench", "compare", "main", "parts", "results", "tune", "verify"]


def main() -> None:
    """Entry point of the `bdhf` command."""
    app()
