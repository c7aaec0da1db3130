"""The clone with the benchmarks, and the package in one of its commits."""

from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdhf.records import InputError
from bdhf.records.provenance.git import diff, git

#: The configuration of asv.
CONFIG = "asv.conf.json"

#: The folder of the benchmarks in the clone, as in that file.
BENCHMARKS = Path("asv_bench/benchmarks")


@dataclass(frozen=True)
class Commit:
    """A commit, with the name by which it was requested."""

    name: str
    digest: str
    subject: str

    def __str__(self) -> str:
        """`main 3f6f38b "One checkpoint"`."""
        named = "" if self.digest.startswith(self.name) else f"{self.name} "
        return f'{named}{self.digest[:8]} "{self.subject}"'


@dataclass(frozen=True)
class Checkout:
    """A clone of the repository."""

    root: Path

    @property
    def benchmarks(self) -> Path:
        """The folder of the benchmarks."""
        return self.root / BENCHMARKS

    def commit(self, name: str) -> Commit:
        """The commit of that name. Raises InputError where there is none."""
        try:
            resolved = self._git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
            shown = ("show", "--no-patch", "--no-show-signature", "--format=%H %s")
            line = self._git(*shown, resolved.decode().strip()).decode()
        except subprocess.CalledProcessError as error:
            error_lines = error.stderr.decode(errors="replace").strip().splitlines()
            why = error_lines[0] if error_lines else "git gives no reason"
            if self._is_shallow():
                why += " (the clone is shallow: `git fetch --unshallow` fetches earlier commits)"
            raise InputError([f"{self.root}: no commit '{name}': {why}"]) from None
        digest, _, subject = line.strip().partition(" ")
        return Commit(name, digest, subject)

    def export(self, commit: Commit, folder: Path) -> Path:
        """Write the package of a commit into a folder, and return the folder.

        Raises InputError for a commit that has no package.
        """
        try:
            self._git("cat-file", "-e", f"{commit.digest}:bdhf/__init__.py")
            packed = self._git("archive", "--format=tar", commit.digest, "bdhf")
        except subprocess.CalledProcessError:
            raise InputError(
                [f"{commit} has no package `bdhf` (no file bdhf/__init__.py): name a later commit"]
            ) from None
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(folder, **safely)
        return folder

    def changed(self, commit: Commit) -> list[str]:
        """Files of the package in the working tree that differ from a commit."""
        differ = diff("--name-only", commit.digest, "--", "bdhf", folder=self.root)
        new = self._git("ls-files", "--others", "--exclude-standard", "--", "bdhf")
        return [*differ.decode().splitlines(), *new.decode().splitlines()]

    def _is_shallow(self) -> bool:
        return self._git("rev-parse", "--is-shallow-repository").strip() == b"true"

    def _git(self, *arguments: str) -> bytes:
        try:
            return git(*arguments, folder=self.root)
        except FileNotFoundError:
            raise InputError(["git is not installed; it is needed to read commits"]) from None


def find_clone() -> Checkout:
    """The clone that contains the current folder. Raises InputError outside of one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG).is_file() and (folder / BENCHMARKS).is_dir():
            return Checkout(folder)
    raise InputError(
        [f"{here}: no {CONFIG} here or above: run benchmarks in a clone of the repository"]
    )
