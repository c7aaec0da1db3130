"""A tiny repository with benchmarks, whose commits are compared in a second."""

from __future__ import annotations

import shutil
from pathlib import Path

from bdhf.bench.checkout import Checkout
from tests.bench.clones import git

CODE = """\
import time

def work(): return {work}
def steps(): return {steps}
def held(): return {held}
{more}
"""

BENCHMARKS = '''\
"""Made up."""
import time

import bdhf


class Suite:
    params = (("a", "b"), ("cpu", "cuda"))
    param_names = ("letter", "device")
    timeout = 20.0

    def setup(self, letter, device):
        if device == "cuda":
            raise NotImplementedError("no such device")

    def time_work(self, letter, device):
        bdhf.work()

    def track_steps(self, letter, device):
        print("printed on the way")
        return bdhf.steps()

    track_steps.unit, track_steps.exact = "steps", True

    def track_held(self, letter, device):
        return bdhf.held()

    track_held.unit = "bytes"


class Cached:
    calls = 0

    def setup_cache(self):
        Cached.calls += 1
        return {"calls": Cached.calls}

    def track_calls(self, cache):
        return cache["calls"]

    track_calls.exact = True

    def track_calls_again(self, cache):
        return cache["calls"]
'''


class Repository:
    """A git repository whose package a test defines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.benchmarks = folder / "asv_bench" / "benchmarks"
        self.benchmarks.mkdir(parents=True)
        (folder / "bdhf").mkdir()
        (folder / "asv.conf.json").write_text("{}")
        (self.benchmarks / "__init__.py").touch()
        (self.benchmarks / "suite.py").write_text(BENCHMARKS)
        git(folder, "init", "--quiet", "--initial-branch", "main")
        self.checkout = Checkout(folder)

    def write(
        self,
        work: str = "sum(range(2000))",
        steps: str = "7",
        held: str = "1000.0",
        more: str = "",
    ) -> None:
        """Change the package without a commit."""
        code = CODE.format(work=work, steps=steps, held=held, more=more)
        # Python would reuse the bytecode of a file with the same second and size: 7 steps, then 8.
        shutil.rmtree(self.folder / "bdhf" / "__pycache__", ignore_errors=True)
        (self.folder / "bdhf" / "__init__.py").write_text(code)

    def commit(self, name: str, **code: str) -> None:
        """Commit the package with this code, under a name."""
        self.write(**code)
        git(self.folder, "add", "bdhf")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", f"Commit {name}")
        git(self.folder, "tag", name)
