"""Claims on runs: processes, also on several machines, share an ablation and do no run twice.

    results/<ablation>/claims/<run id>.<generation>

A claim is a file that is made whole and only by one: the highest generation holds the run. A stale
claim is taken over by making the next generation, never by removing one, so that of two who try
one wins (docs/decisions/0014). A claim is stale when its process on this machine is gone; one of
another machine, when no heartbeat has touched it for `STALE_SECONDS` by the clock of the file
system.
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

#: What `os.link` says on a file system that has no links.
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))

#: A whole number as it is written: by another name a claim could not be removed.
_GENERATION = re.compile("0|[1-9][0-9]*")

#: The owner of a claim that cannot be read: only its silence can tell that it has ended.
_UNKNOWN = Owner("unknown", 0, 0.0)


@dataclass(frozen=True)
class Claim:
    """A run that an owner holds, or held."""

    run_id: str
    generation: int
    owner: Owner
    made: float  # seconds since 1970, by the owner's clock: to be shown, not to be relied on

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.run_id}.{self.generation}"


@dataclass
class Claims:
    """The claims on the runs of one ablation, as this process makes and holds them."""

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
        """Hold a run; None while another process does. Raises OSError where nothing can be written.

        Whoever holds it must look whether it has been done before.
        """
        highest = _highest(_read(self.home, run_id))
        if highest is not None and not _is_stale(self.home, highest, self.stale_seconds):
            return None
        generation = 0 if highest is None else highest.generation + 1
        claim = Claim(run_id, generation, Owner.here(), time.time())
        self._held[run_id] = claim  # before it is made: who is interrupted lets it go as well
        if _make(self.home, claim):
            if self._follows(claim, highest):
                self._beat_from_now_on()
                return claim
            (self.home / claim.name).unlink(missing_ok=True)
        del self._held[run_id]
        return None

    def release(self, claim: Claim) -> None:
        """Let a run go: all generations up to this one, the lowest first.

        Of a run that another process has taken over nothing is removed: what is there is its own.
        """
        generations = sorted(_read(self.home, claim.run_id), key=lambda other: other.generation)
        for old in generations if claim in generations[-1:] else ():
            with suppress(OSError):
                (self.home / old.name).unlink()
        self._held.pop(claim.run_id, None)  # at last: who is interrupted before lets it go again

    def close(self) -> None:
        """Let all runs go and end the heartbeat."""
        self._stop.set()
        for claim in list(self._held.values()):
            self.release(claim)

    def _follows(self, claim: Claim, highest: Claim | None) -> bool:
        """Whether a claim was made on the one that was seen before it, and is the highest now.

        Between the look and the claim the run may have been let go and claimed anew.
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
                with suppress(OSError):  # a full disk lets a claim go stale, no more
                    os.utime(self.home / claim.name)


def holds(folder: Path, claim: Claim) -> bool:
    """Whether no one has taken the run over from the owner of a claim. Raises OSError."""
    home = folder / "claims"
    with suppress(FileNotFoundError):
        clock_of(home)  # a client of NFS looks at a folder anew when it has changed it itself
    return _highest(_read(home, claim.run_id)) == claim


def release_ended(folder: Path) -> None:
    """Release what processes that have ended still hold. Raises OSError."""
    claims = Claims(folder)
    try:
        for run_id in {claim.run_id for claim in _read(claims.home)}:
            claim = claims.take(run_id)
            if claim is not None:
                claims.release(claim)
    finally:
        claims.close()


def living(folder: str | Path, stale_seconds: float = STALE_SECONDS) -> tuple[Claim, ...]:
    """The claims whose owners are at work, each run once."""
    home, highest = Path(folder) / "claims", dict[str, Claim]()
    for claim in _read(home):
        if claim.generation >= highest.get(claim.run_id, claim).generation:
            highest[claim.run_id] = claim
    return tuple(c for c in highest.values() if not _is_stale(home, c, stale_seconds))


def _is_stale(home: Path, claim: Claim, stale_seconds: float) -> bool:
    """Whether the owner has ended, as far as one can tell from here."""
    if claim.owner.is_here:
        return claim.owner.is_gone
    try:
        return is_silent(home / claim.name, clock_of(home), stale_seconds)
    except OSError:  # released meanwhile, or nothing can be written here: nothing is taken over
        return False


def _make(home: Path, claim: Claim) -> bool:
    """Make the file of a claim, whole; False where another process was quicker."""
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
    """Give a file the name of a claim; False where the name is taken."""
    try:
        os.link(whole, path)
    except FileExistsError:
        return whole.stat().st_nlink > 1  # NFS may tell of one's own link
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create(path, whole.read_bytes())
    return True


def _create(path: Path, content: bytes) -> bool:
    """Make a claim where there are no links: for a moment it can be seen unfinished."""
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
    """The claims in a folder; what is none, or goes meanwhile, is left out."""
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
    """The owner of a claim and when it was made. Raises what `_read` catches for what is none."""
    content = json.loads(read)
    made = content.pop("made")
    if type(made) not in (int, float):
        raise ValueError(f"made: {made!r} is no time")
    return Owner.read(content), float(made)


def _highest(claims: Iterable[Claim]) -> Claim | None:
    return max(claims, key=lambda claim: claim.generation, default=None)
