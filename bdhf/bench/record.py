"""Run asv with the right settings for this machine: results of commits, stored in files.

asv has one environment for each version of torch, and installs a commit into it without
dependencies, in seconds. Its results are in `asv_bench/results`, by machine and commit.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bdhf.bench.checkout import CONFIG, Checkout
from bdhf.records import InputError
from bdhf.records.provenance.git import git_environment

#: Seconds for asv to end its processes after an interruption.
_PATIENCE = 15.0

#: Words that asv accepts as a range, in addition to ranges of git.
_WORDS = ("NEW", "ALL", "EXISTING", "TAGS")

#: Paths in the configuration, relative to the working directory of asv.
_PATHS = ("repo", "benchmark_dir", "results_dir", "env_dir", "html_dir")


@dataclass(frozen=True)
class Recorded:
    """The results of a run of asv."""

    exit_code: int
    results: int  # numbers
    failed: int  # combinations without a number, except those left out on purpose
    folder: Path | None  # the folder of the results; None: not kept


def run_asv(
    checkout: Checkout,
    commits: str = "HEAD",
    benchmarks: Sequence[str] = (),
    *,
    quick: bool = False,
    machine: str | None = None,
) -> Recorded:
    """Run asv on a commit or a range of commits, with its output on that of this process.

    `quick` takes one sample of each and keeps no result. Raises InputError where asv is missing.
    """
    if find_spec("asv") is None:
        raise InputError(["asv is not installed here: pip install '.[bench]'"])
    with _config(checkout, quick) as (config, results):
        name = machine or _this_machine()
        start = time.time()
        code = _run(
            [
                sys.executable, "-m", "asv", "--config", str(config), "run",
                "--machine", name, "--launch-method", launch_method(), "--show-stderr",
                *(["--quick"] if quick else []),
                *(part for pattern in benchmarks for part in ("--bench", pattern)),
                range_of(commits),
            ],
            git_environment(checkout.root),
        )  # fmt: skip
        numbers, failed = count_since(results, start)
        return Recorded(code, numbers, failed, None if quick else results)


def _run(command: Sequence[str], variables: Mapping[str, str] = os.environ) -> int:
    """Run asv with these environment variables.

    An interruption is passed on, and asv gets time to end its processes.
    """
    process = subprocess.Popen(command, env={**variables, "OMP_NUM_THREADS": "1"})
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def range_of(commits: str) -> str:
    """A single commit as a range; ranges and asv's words unchanged.

    >>> range_of("main"), range_of("v1..main"), range_of("NEW")
    ('main^!', 'v1..main', 'NEW')
    """
    is_range = ".." in commits or commits.endswith(("^!", "^@")) or commits in _WORDS
    return commits if is_range or commits.startswith("HASHFILE:") else f"{commits}^!"


def launch_method() -> str:
    """Fork each process from one with all imports; with CUDA, which forbids this, start it new."""
    has_gpu = shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()
    return "spawn" if has_gpu or not hasattr(os, "fork") else "forkserver"


def count_since(folder: Path, start: float) -> tuple[int, int]:
    """Numbers and failures of the benchmarks that started since `start`, in all result files."""
    numbers = failures = 0
    for path in folder.glob("*/*.json"):
        if path.name != "machine.json":
            measured, failed = _count(json.loads(path.read_text(encoding="utf-8")), start)
            numbers, failures = numbers + measured, failures + failed
    return numbers, failures


def _count(content: Mapping[str, Any], start: float) -> tuple[int, int]:
    """Numbers and failures in a result file: null is a failure, NaN was left out on purpose."""
    numbers = failures = 0
    for cells in content["results"].values():
        row = dict(zip(content["result_columns"], cells, strict=False))
        if (row.get("started_at") or 0) < 1000 * start - 1:  # asv keeps older results in the file
            continue
        values = row.get("result")
        for value in values if isinstance(values, list) else [values]:
            numbers += value is not None and math.isfinite(value)
            failures += value is None
    return numbers, failures


@contextmanager
def _config(checkout: Checkout, quick: bool) -> Iterator[tuple[Path, Path]]:
    """The configuration and its folder of results; temporary ones for `quick`."""
    path = checkout.root / CONFIG
    settings = _without_comments(path)
    if not quick:
        yield path, checkout.root / settings["results_dir"]
        return
    with tempfile.TemporaryDirectory(prefix="bdhf-asv-") as temporary:
        absolute = {key: str((checkout.root / settings[key]).resolve()) for key in _PATHS}
        results = Path(temporary) / "results"
        passing = Path(temporary) / CONFIG
        content = {**settings, **absolute, "results_dir": str(results)}
        passing.write_text(json.dumps(content), encoding="utf-8")
        yield passing, results


def _without_comments(path: Path) -> dict[str, Any]:
    """Read JSON with lines of comments, as asv does."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = "\n".join("" if line.lstrip().startswith("//") else line for line in lines)
    content: dict[str, Any] = json.loads(kept)
    return content


def _this_machine() -> str:
    """The name of this machine, registered with asv if it is new."""
    name = platform.node()
    file = Path("~/.asv-machine.json").expanduser()
    try:
        machines = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise InputError([f"{file}: not JSON: {error}; remove it; asv writes a new one"]) from None
    if name not in machines:
        subprocess.run(
            [sys.executable, "-m", "asv", "machine", "--yes", "--machine", name],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return name
