"""Records as one block of text that a page carries, and back: `encode` and `decode`.

The first line is JSON: the version of this format, the bdhf that wrote it, the versions of what
draws and computes, and a SHA-256. The lines below are the archive of `packing` in base85 (that of
Python's base64.b85encode), with `,` in the place of `<`, so that the block can stand inside an
element of HTML.
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

_CAPSULE_VERSION = 1

#: Characters of a block beyond which diagnostics are carried in short.
HEAVY = 8_000_000

#: Packages whose version may change what a page shows.
_PACKAGES = ("matplotlib", "numpy", "scipy", "pandas")

_WIDTH = 160


@dataclass(frozen=True)
class EmbeddedRecords:
    """What a page carries.

    `light`: diagnostics are those of `packing.lighten`. `versions`: package -> its version, where
    the page was made.
    """

    records: Records
    files: Mapping[str, RunFiles]
    light: bool
    versions: Mapping[str, str]
    sha256: str
    anonymous: bool = False  # whether what identifies was left out

    @property
    def summed(self) -> tuple[str, ...]:
        """The files of a run whose sums it carries."""
        return SUMMED if self.anonymous else ARCHIVED_FILES


def encode(
    records: Records, files: Mapping[str, RunFiles] | None = None, *, anonymous: bool = False
) -> str:
    """Make the block: exact, but for the diagnostics of one that would be larger than `HEAVY`.

    `files`: what lay in the folders of the runs, by run id. `anonymous`: records and files are
    those of the module of that name, and the block says so.
    """
    content, light = pack(records, files or {}), False
    if len(content) * 5 / 4 > HEAVY:
        light = True
        content = pack(replace(records, curves=lighten(records.curves)), files or {})
    header: dict[str, Any] = {"capsule": _CAPSULE_VERSION, "light": light, "versions": versions()}
    if anonymous:
        header["anonymous"] = True
    text = base64.b85encode(content).decode().replace("<", ",")
    lines = [text[start : start + _WIDTH] for start in range(0, len(text), _WIDTH)]
    return "\n".join([json.dumps({**header, "sha256": _sum(header, content)}), *lines])


def decode(block: str, where: str = "the records") -> EmbeddedRecords:
    """Read a block.

    Raises InputError, in one line that begins with `where`, for one that is cut, changed, or of a
    newer bdhf.
    """
    if "<" in block:  # it stands in the page as it is: no character of it may begin an element
        raise _unfit(where, "are cut or changed (they hold a `<`)")
    header, body = _header(block, where)
    try:
        content = base64.b85decode("".join(body.split()).replace(",", "<"))
    except ValueError as error:
        raise _unfit(where, f"are cut or changed ({in_brief(error)})") from None
    expected = header.pop("sha256")
    if _sum(header, content) != expected:
        raise _unfit(where, "are cut or changed (their SHA-256 is another)")
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
    """The versions here of bdhf, and of what draws and computes for it."""
    own: str = import_module("bdhf").__version__  # whose lazy names the report must not import
    return {"bdhf": own, **{name: version(name) for name in _PACKAGES}}


def _header(block: str, where: str) -> tuple[dict[str, Any], str]:
    line, _, body = block.strip().partition("\n")
    try:
        header = json.loads(line)
        number = header["capsule"]
        if type(number) is not int:
            raise TypeError("no version")
    except (ValueError, TypeError, LookupError):
        raise _unfit(where, "have no header that can be read") from None
    if number > _CAPSULE_VERSION:
        newer = f"are of version {number}; this bdhf reads up to version {_CAPSULE_VERSION}"
        raise InputError([f"{where}: its records {newer}: upgrade bdhf"])
    kinds = {"light": bool, "versions": dict, "sha256": str}
    if any(not isinstance(header.get(key), kind) for key, kind in kinds.items()):
        raise _unfit(where, "have no header that can be read")
    return header, body


def _sum(header: Mapping[str, Any], content: bytes) -> str:
    """SHA-256 of the header without it, as JSON with sorted keys, and of the archive."""
    return digest(json.dumps(header, sort_keys=True).encode() + content)


def _unfit(where: str, what: str) -> InputError:
    whole = "get the file anew from whoever made it (`bdhf report RESULTS` does)"
    return InputError([f"{where}: its records {what}: {whole}"])
