"""Random damage to a results folder, as by disks, copies and users."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What may stand where JSON has something else.
ODD: tuple[Any, ...] = (None, True, -1, 1.5, 10**30, "", "x", [], {}, ["x"], {"x": 1})


def mutate(folder: Path, seed: int) -> str:
    """Damage one file of a folder; return the damage and the file."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = rng.choice(files)
    kind = rng.choice(sorted(KINDS))
    KINDS[kind](path, rng, files)
    return f"{kind} {path.relative_to(folder)} (seed {seed})"


def _flip(path: Path, rng: random.Random, files: list[Path]) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, rng: random.Random, files: list[Path]) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def _zero(path: Path, rng: random.Random, files: list[Path]) -> None:
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    zeros = bytes(min(rng.choice((1, 16, 512)), len(content) - at))
    path.write_bytes(content[:at] + zeros + content[at + len(zeros) :])


def _replace(path: Path, rng: random.Random, files: list[Path]) -> None:
    path.write_bytes(rng.randbytes(rng.randrange(1, 2000)))


def _swap(path: Path, rng: random.Random, files: list[Path]) -> None:
    """Put a file of the same name into its place where there is one, of another run; else any."""
    alike = [other for other in files if other.name == path.name and other != path]
    others = [other for other in files if other != path]
    shutil.copy(rng.choice(alike or others), path)


def _swap_folder(path: Path, rng: random.Random, files: list[Path]) -> None:
    """Put all files of another run into the place of one's own."""
    other = rng.choice(files).parent
    for there in path.parent.iterdir():
        if there.is_file() and (other / there.name).is_file():
            shutil.copyfile(other / there.name, f"{there}.new")
            Path(f"{there}.new").replace(there)


def _empty(path: Path, rng: random.Random, files: list[Path]) -> None:
    path.write_bytes(b"")


def _lose(path: Path, rng: random.Random, files: list[Path]) -> None:
    path.unlink()


def _folder(path: Path, rng: random.Random, files: list[Path]) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path, rng: random.Random, files: list[Path]) -> None:
    """A file that the system refuses to open, as without permission."""
    path.unlink()
    path.symlink_to(path.name)


def _other_type(path: Path, rng: random.Random, files: list[Path]) -> None:
    """Put something of another type somewhere into a JSON file; any other file is flipped."""
    if path.suffix not in (".json", ".0"):
        return _flip(path, rng, files)
    content = json.loads(path.read_text())
    node: Any = content
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.4:
            break
        node = node[key]
    node[key] = rng.choice(ODD)
    path.write_text(json.dumps(content))
    return None


KINDS: dict[str, Callable[[Path, random.Random, list[Path]], None]] = {
    "flip": _flip, "cut": _cut, "zero": _zero, "replace": _replace, "swap": _swap,
    "swap folder": _swap_folder, "empty": _empty, "lose": _lose, "folder": _folder, "loop": _loop,
    "type": _other_type,
}  # fmt: skip


def sums(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of every file of a folder; of what is no file, what it is."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else f"folder {path.is_dir()}"
        for path in folder.rglob("*")
    }
