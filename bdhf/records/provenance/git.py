"""Output of git for a repository, independent of the settings of the user and the repository.

Settings can name programs that compare, convert, watch or print files, and a repository from an
unknown source has its own settings. None of these programs is run, no lock is taken and nothing is
written. Filters of the user's own settings are run: without them, files that are stored elsewhere
(as by Git LFS) would all look changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Settings that name programs or change the output, at their defaults or off.
_SETTINGS: Mapping[str, str] = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.pager": "cat",
    "core.quotePath": "true",
    "core.splitIndex": "false",
    "color.ui": "false",
    "diff.algorithm": "myers",
    "diff.context": "3",
    "diff.interHunkContext": "0",
    "diff.indentHeuristic": "true",
    "diff.mnemonicPrefix": "false",
    "diff.noprefix": "false",
    "diff.srcPrefix": "a/",
    "diff.dstPrefix": "b/",
    "diff.orderFile": os.devnull,
    "diff.relative": "false",
    "diff.renames": "true",
    "diff.submodule": "short",
    "log.showSignature": "false",
}

#: Environment variables with the same effect.
_UNSET = ("GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS")

#: Options of `diff`: no external program compares or converts files.
_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color")


def git(*arguments: str, folder: Path | None = None, timeout: float | None = None) -> bytes:
    """Output of git, in the working directory or another folder.

    Raises CalledProcessError, TimeoutExpired, and FileNotFoundError where git is not installed.
    """
    where = folder if folder is not None else Path.cwd()
    return _run(_command(where, *arguments), git_environment(where), timeout)


def diff(*arguments: str, folder: Path | None = None, timeout: float | None = None) -> bytes:
    """Output of `git diff` for the working tree. Raises as `git`, and OSError.

    Git locks the index and records there which files it has checked: here, in a copy.
    """
    where = folder if folder is not None else Path.cwd()
    answer = git("rev-parse", "--git-path", "index", folder=where, timeout=timeout)
    index = where / os.fsdecode(answer.rstrip(b"\n"))
    with tempfile.TemporaryDirectory(prefix="bdhf-git-") as passing:
        copy = Path(passing) / "index"
        if index.exists():
            shutil.copy2(index, copy)  # with its time, from which git derives which files are fresh
        variables = git_environment(where) | {"GIT_INDEX_FILE": str(copy)}
        return _run(_command(where, *_DIFF, *arguments), variables, timeout)


def git_environment(folder: Path) -> dict[str, str]:
    """Variables that stop git from running programs that settings name."""
    return _with_settings({**_SETTINGS, **_without_filters(folder)})


def _without_filters(folder: Path) -> Mapping[str, str]:
    """Settings that turn off the filters of the repository's own settings."""
    asked = ("config", "--null", "--show-scope", "--get-regexp", r"^filter\.")
    try:
        listed = _run(_command(folder, *asked), _with_settings(_SETTINGS), None).decode(
            errors="surrogateescape"
        )
    except (OSError, subprocess.CalledProcessError):  # there are none, or no repository, or no git
        return {}
    fields = listed.split("\0")
    off: dict[str, str] = {}
    for scope, entry in zip(fields[::2], fields[1::2], strict=False):
        name = entry.partition("\n")[0].rpartition(".")[0]
        if scope in ("local", "worktree"):
            off |= {f"{name}.{key}": "" for key in ("clean", "smudge", "process")}
            off[f"{name}.required"] = "false"
    return off


def _with_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """The variables of this process, with settings of git after those that are already set."""
    variables = {key: value for key, value in os.environ.items() if key not in _UNSET}
    before = variables.get("GIT_CONFIG_COUNT", "0")
    first = int(before) if before.isdecimal() else 0
    for number, (key, value) in enumerate(settings.items(), first):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    variables["GIT_CONFIG_COUNT"] = str(first + len(settings))
    return variables | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def _command(folder: Path, *arguments: str) -> list[str]:
    return ["git", "--no-pager", "-C", str(folder), *arguments]


def _run(command: Sequence[str], variables: Mapping[str, str], timeout: float | None) -> bytes:
    done = subprocess.run(command, capture_output=True, check=True, timeout=timeout, env=variables)
    return done.stdout
