"""A clone of this repository with the working tree's package, to plant changes in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Files that a clone takes from the working tree, so that uncommitted changes are tested too.
TAKEN = ("bdhf", "asv_bench", "asv.conf.json", "pyproject.toml", "CHANGELOG.md", "README.md")

#: Author of commits, without a signature, whatever the settings of the machine.
_SETTINGS = (
    "user.name=test",
    "user.email=test@example.org",
    "commit.gpgsign=false",
    "tag.gpgsign=false",
)


def git(folder: Path, *arguments: str) -> str:
    """The output of git in a folder. Raises CalledProcessError."""
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    done = subprocess.run(
        ["git", "-C", folder, *settings, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class Clone:
    """A clone whose branch `main` is the present working tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, folder], check=True)
        self.git("checkout", "--quiet", "-B", "main")
        ignored = shutil.ignore_patterns("__pycache__", "results")
        for name in TAKEN:
            taken, there = ROOT / name, folder / name
            if taken.is_dir():
                shutil.copytree(taken, there, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy(taken, there)
        self.commit("The working tree")

    def git(self, *arguments: str) -> str:
        """The output of git in the clone."""
        return git(self.folder, *arguments)

    def commit(self, message: str) -> str:
        """Commit all changes; the commit."""
        self.git("add", "--all", "bdhf", *TAKEN)
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def plant(self, file: str, old: str, new: str) -> str:
        """Change one part of a file on a new branch; the commit. `main` stays unchanged."""
        self.git("checkout", "--quiet", "-B", "planted", "main")
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} has {text.count(old)} of: {old}"
        path.write_text(text.replace(old, new), encoding="utf-8")
        digest = self.commit("Planted")
        self.git("checkout", "--quiet", "main")
        return digest

    def bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`bdhf bench` of this package, in the clone."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "bdhf.cli", "bench", *arguments],
            cwd=self.folder, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        )  # fmt: skip
