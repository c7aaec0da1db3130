"""Claims on runs: processes, also on several machines, share an ablation and do no run twice.

    results/<ablation>/claims/<run id>.<generation>

A claim is a file that is created whole, by one process only; the highest generation holds the run.
A process takes over a stale claim by creating the next generation, never by removing a file, so
that of two processes only one succeeds (docs/decisions/0014). A claim of this machine is stale when
its process has ended; a claim of another machine when no heartbeat has touched its file for
`STALE_SECONDS` by the clock of the file system.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bdhf.records import STALE_SECONDS, Owner, clock_of, is_silent, temporary_folder
from bdhf.records.disk.files import UNREADABLE

_HEARTBEAT_SECONDS = 30.0

#: Errors of `os.link` on a file system without links.
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))

#: A whole number in the form in which it is written; a claim of another name could not be removed.
_GENERATION = re.compile("0|[1-9][0-9]*")

#: The owner of an unreadable claim: only missing heartbeats show that it has ended.
_UNKNOWN = Owner("unknown", 0, 0.0)


@dataclass(frozen=True)
class Claim:
    """A claim on a run, present or past."""

    run_id: str
    generation: int
    owner: Owner
    made: float  # seconds since 1970, by the owner's clock: for display only

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.run_id}.{self.generation}"


@dataclass
class Claims:
    """The claims of this process on the runs of one ablation."""

    folder: Path  # of the results
    stale_seconds: float = STALE_SECONDS
    heartbeat_seconds: float = _HEARTBEAT_SECONDS
    _held: dict[str, Claim] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _pulse: threading.Thread | None = None

    @property
    def home(self) -> Path:
        """The folder of the claims."""
        return self.folder / "claims"

    def take(self, run_id: str) -> Claim | None:
        """Claim a run; None while another process holds it. Raises OSError if it cannot be written.

        The caller must check afterwards that the run has no outcome yet.
        """
        highest = _highest(_read(self.home, run_id))
        if highest is not None and not _is_stale(self.home, highest, self.stale_seconds):
            return None
        generation = 0 if highest is None else highest.generation + 1
        claim = Claim(run_id, generation, Owner.here(), time.time())
        self._held[run_id] = claim  # before it is made, so that an interrupt releases it
        if _make(self.home, claim):
            if self._follows(claim, highest):
                self._beat_from_now_on()
                return claim
            (self.home / claim.name).unlink(missing_ok=True)
        del self._held[run_id]
        return None

    def release(self, claim: Claim) -> None:
        """Release a run: remove all generations up to this one, the lowest first.

        If another process has taken the run over, nothing is removed.
        """
        generations = sorted(_read(self.home, claim.run_id), key=lambda other: other.generation)
        for old in generations if claim in generations[-1:] else ():
            with suppress(OSError):
                (self.home / old.name).unlink()
        self._held.pop(claim.run_id, None)  # last, so that an interrupt releases it again

    def close(self) -> None:
        """Release all runs and end the heartbeat."""
        self._stop.set()
        for claim in list(self._held.values()):
            self.release(claim)

    def _follows(self, claim: Claim, highest: Claim | None) -> bool:
        """Whether a claim follows the highest one that was read before, and is the highest now.

        Between the read and the claim, the run may have been released and claimed again.
        """
        others = [other for other in _read(self.home, claim.run_id) if other != claim]
        overtaken = any(other.generation >= claim.generation for other in others)
        return not overtaken and (not others or highest in others)

    def _beat_from_now_on(self) -> None:
        if self._pulse is None:
            self._pulse = threading.Thread(target=self._beat, daemon=True)
            self._pulse.start()

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat_seconds):
            for claim in list(self._held.values()):
                with suppress(OSError):  # on a full disk the claim becomes stale
                    os.utime(self.home / claim.name)


def holds(folder: Path, claim: Claim) -> bool:
    """Whether no process has taken the run over from the owner of a claim. Raises OSError."""
    home = folder / "claims"
    with suppress(FileNotFoundError):
        clock_of(home)  # a write makes a client of NFS read the folder again
    return _highest(_read(home, claim.run_id)) == claim


def release_ended(folder: Path) -> None:
    """Release the claims of processes that have ended. Raises OSError."""
    claims = Claims(folder)
    try:
        for run_id in {claim.run_id for claim in _read(claims.home)}:
            claim = claims.take(run_id)
            if claim is not None:
                claims.release(claim)
    finally:
        claims.close()


def living(folder: str | Path, stale_seconds: float = STALE_SECONDS) -> tuple[Claim, ...]:
    """The claims that are not stale, one per run."""
    home, highest = Path(folder) / "claims", dict[str, Claim]()
    for claim in _read(home):
        if claim.generation >= highest.get(claim.run_id, claim).generation:
            highest[claim.run_id] = claim
    return tuple(c for c in highest.values() if not _is_stale(home, c, stale_seconds))


def _is_stale(home: Path, claim: Claim, stale_seconds: float) -> bool:
    """Whether the owner has ended, as far as this process can see."""
    if claim.owner.is_here:
        return claim.owner.is_gone
    try:
        return is_silent(home / claim.name, clock_of(home), stale_seconds)
    except OSError:  # released meanwhile, or a folder that cannot be written: no takeover
        return False


def _make(home: Path, claim: Claim) -> bool:
    """Create the file of a claim, whole; False if another process was faster."""
    content = json.dumps({**asdict(claim.owner), "made": claim.made})
    home.mkdir(parents=True, exist_ok=True)
    folder = temporary_folder(home)
    try:
        whole = folder / claim.name
        whole.write_text(content, encoding="utf-8")
        return _link(whole, home / claim.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(whole: Path, path: Path) -> bool:
    """Link a file to the name of a claim; False if the name is taken."""
    try:
        os.link(whole, path)
    except FileExistsError:
        return whole.stat().st_nlink > 1  # NFS may report the link just made
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create(path, whole.read_bytes())
    return True


def _create(path: Path, content: bytes) -> bool:
    """Create a claim without links; for a moment other processes can see it incomplete."""
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _read(home: Path, run_id: str = "*") -> Iterator[Claim]:
    """The claims in a folder, without other files and those removed meanwhile."""
    for path in home.glob(f"{run_id}.[0-9]*"):
        name, _, generation = path.name.rpartition(".")
        if _GENERATION.fullmatch(generation) is None:
            continue
        try:
            owner, made = _content(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OverflowError, *UNREADABLE):
            owner, made = _UNKNOWN, 0.0
        yield Claim(name, int(generation), owner, made)


def _content(read: bytes) -> tuple[Owner, float]:
    """The owner of a claim and its time. Raises an error that `_read` catches if it is invalid."""
    content = json.loads(read)
    made = content.pop("made")
    if type(made) not in (int, float):
        raise ValueError(f"made: {made!r} is no time")
    return Owner.read(content), float(made)


def _highest(claims: Iterable[Claim]) -> Claim | None:
    return max(claims, key=lambda claim: claim.generation, default=None)
