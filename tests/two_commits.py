"""Whether asv measures, and what a second commit costs: `python -m tests.two_commits`.

The second is an empty commit on top of the last one, to which no branch is moved. Both have to
leave results, and the second is to be installed into the environment of the first: the same torch,
file for file.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bdhf.bench.checkout import find_clone
from bdhf.bench.record import run_asv

#: A subset of every file of benchmarks that takes no training.
SUBSET = (
    "imports.Start.track",
    "framework.Spec",
    "solvers.Solve.track_peak",
    r"products.Product.*\(.classifier., .ggn., .full.",
    r"updates.Update.*\(.zhang2017 groups., .classifier",
)


def torches() -> dict[str, tuple[int, int]]:
    """The files of torch in asv's environments: inode and time of change, by path."""
    paths = Path(".asv/env").glob("*/lib/python*/site-packages/torch/*.py")
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def measured(commit: str) -> tuple[int, float]:
    """Results of a commit, and seconds."""
    start = time.monotonic()
    recorded = run_asv(find_clone(), commit, SUBSET, quick=True)
    if recorded.failed or recorded.exit_code or not recorded.results:
        sys.exit(f"asv left {recorded.results} results and {recorded.failed} failures: no gate")
    return recorded.results, time.monotonic() - start


def main() -> None:
    """Measure the last commit and an empty one after it."""
    results, first = measured("HEAD")
    before = torches()
    who = ["-c", "user.name=ci", "-c", "user.email=ci@example.org"]
    made = ["commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "Nothing new"]
    done = subprocess.run(["git", *who, *made], check=True, capture_output=True, text=True)
    again, second = measured(done.stdout.strip())
    if not before or torches() != before:
        sys.exit("the second commit brought another torch")
    print(  # noqa: T201 - this is a command
        f"asv: {results} results of a commit in {first:.0f} s with its environment, "
        f"{again} of a second one in {second:.0f} s with the same torch"
    )


if __name__ == "__main__":
    main()
