"""Records as a block of text that a page carries, and back: `encode` and `decode`.

The first line is JSON: the version of this format, the versions of bdhf and of the packages that
draw and compute, and a SHA-256. The lines below are the archive in base85 (Python's
base64.b85encode) with `,` instead of `<`, so an HTML element can contain the block.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from typing import Any

from bdhf.records import InputError, Records, in_brief
from bdhf.records.disk.checksums import digest
from bdhf.records.disk.files import UNREADABLE
from bdhf.report.embedded.anonymous import SUMMED
from bdhf.report.embedded.archive import ARCHIVED_FILES, BROKEN, RunFiles, lighten, pack, unpack

_FORMAT_VERSION = 1

#: The number of characters of a block beyond which diagnostics are reduced.
HEAVY = 8_000_000

#: Packages whose version may change what a page shows.
_PACKAGES = ("matplotlib", "numpy", "scipy", "pandas")

_WIDTH = 160


@dataclass(frozen=True)
class EmbeddedRecords:
    """What a page carries.

    `light`: whether diagnostics are reduced by `lighten`. `versions`: package -> its version where
    the page was made.
    """

    records: Records
    files: Mapping[str, RunFiles]
    light: bool
    versions: Mapping[str, str]
    sha256: str
    anonymous: bool = False  # whether identifying values were left out

    @property
    def summed(self) -> tuple[str, ...]:
        """The files of a run whose sums are carried."""
        return SUMMED if self.anonymous else ARCHIVED_FILES


def encode(
    records: Records, files: Mapping[str, RunFiles] | None = None, *, anonymous: bool = False
) -> str:
    """Make the block: exact, except that diagnostics are reduced if it would exceed `HEAVY`.

    `files`: the files of the runs, by run id. `anonymous`: whether records and files are anonymous;
    the header states it.
    """
    content, light = pack(records, files or {}), False
    if len(content) * 5 / 4 > HEAVY:
        light = True
        content = pack(replace(records, curves=lighten(records.curves)), files or {})
    header: dict[str, Any] = {"capsule": _FORMAT_VERSION, "light": light, "versions": versions()}
    if anonymous:
        header["anonymous"] = True
    text = base64.b85encode(content).decode().replace("<", ",")
    lines = [text[start : start + _WIDTH] for start in range(0, len(text), _WIDTH)]
    return "\n".join([json.dumps({**header, "sha256": _sum(header, content)}), *lines])


def decode(block: str, where: str = "the records") -> EmbeddedRecords:
    """Read a block.

    Raises InputError, with one line that begins with `where`, for a block that is cut, changed or
    of a newer bdhf.
    """
    if "<" in block:  # the page contains it unescaped: it must not begin an element
        raise _unfit(where, "are cut or changed (they contain a `<`)")
    header, body = _header(block, where)
    try:
        content = base64.b85decode("".join(body.split()).replace(",", "<"))
    except ValueError as error:
        raise _unfit(where, f"are cut or changed ({in_brief(error)})") from None
    expected = header.pop("sha256")
    if _sum(header, content) != expected:
        raise _unfit(where, "are cut or changed (their SHA-256 differs)")
    try:
        records, files = unpack(content)
    except (*BROKEN, *UNREADABLE) as error:
        raise _unfit(where, f"cannot be read ({in_brief(error)})") from None
    return EmbeddedRecords(
        records,
        files,
        light=bool(header["light"]),
        versions=dict(header["versions"]),
        sha256=expected,
        anonymous=header.get("anonymous") is True,
    )


def versions() -> dict[str, str]:
    """The installed versions of bdhf and of the packages that draw and compute for it."""
    own: str = import_module("bdhf").__version__  # its lazy names would import torch
    return {"bdhf": own, **{name: version(name) for name in _PACKAGES}}


def _header(block: str, where: str) -> tuple[dict[str, Any], str]:
    line, _, body = block.strip().partition("\n")
    try:
        header = json.loads(line)
        number = header["capsule"]
        if type(number) is not int:
            raise TypeError("no version")
    except (ValueError, TypeError, LookupError):
        raise _unfit(where, "have no readable header") from None
    if number > _FORMAT_VERSION:
        newer = f"have version {number}; this bdhf reads up to version {_FORMAT_VERSION}"
        raise InputError([f"{where}: its records {newer}: upgrade bdhf"])
    kinds = {"light": bool, "versions": dict, "sha256": str}
    if any(not isinstance(header.get(key), kind) for key, kind in kinds.items()):
        raise _unfit(where, "have no readable header")
    return header, body


def _sum(header: Mapping[str, Any], content: bytes) -> str:
    """SHA-256 of the header without the sum, as JSON with sorted keys, and of the archive."""
    return digest(json.dumps(header, sort_keys=True).encode() + content)


def _unfit(where: str, what: str) -> InputError:
    advice = "get the file again from its author (`bdhf report RESULTS` makes it)"
    return InputError([f"{where}: its records {what}: {advice}"])
