"""Claims on runs: processes, also on several machines, share an ablation and do no run twice.

    results/<ablation>/claims/<run id>.<generation>

A claim is a file that is made whole and only by one: the highest generation holds the run. A stale
claim is taken over by making the next generation, never by removing one, so that of two who try one
wins (docs/decisions/0014). A claim is stale when its process on this machine is gone, or when no
heartbeat has touched it for `STALE_SECONDS`: by the clock of the file system, which all share.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bdhf.records.files import STALE_SECONDS, clock_of, temporary_folder
from bdhf.records.owner import Owner

HEARTBEAT_SECONDS = 30.0


@dataclass(frozen=True)
class Claim:
    """A run that an owner holds, or held."""

    run_id: str
    generation: int
    owner: Owner
    age: float = 0.0  # seconds since it was made
    silence: float = 0.0  # seconds since the last heartbeat

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.run_id}.{self.generation}"

    def is_stale(self, stale_seconds: float = STALE_SECONDS) -> bool:
        """Whether its owner has ended, or has been silent for too long."""
        return self.owner.is_gone or self.silence > stale_seconds


@dataclass
class Claims:
    """The claims on the runs of one ablation, as this process makes and holds them."""

    folder: Path  # of the results
    stale_seconds: float = STALE_SECONDS
    heartbeat_seconds: float = HEARTBEAT_SECONDS
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
        self.home.mkdir(parents=True, exist_ok=True)
        highest = _highest(_read(self.home, run_id))
        if highest is not None and not highest.is_stale(self.stale_seconds):
            return highest if self._held.get(run_id) == highest else None
        claim = Claim(run_id, highest.generation + 1 if highest else 0, Owner.here())
        if not _make(self.home, claim):
            return None
        self._held[run_id] = claim
        self._beat_from_now_on()
        return claim

    def is_mine(self, claim: Claim) -> bool:
        """Whether no one has taken the run over from this process."""
        highest = _highest(_read(self.home, claim.run_id))
        return highest is not None and highest.generation == claim.generation

    def release(self, claim: Claim) -> None:
        """Let a run go: all generations up to this one, the lowest first."""
        self._held.pop(claim.run_id, None)
        for old in sorted(_read(self.home, claim.run_id), key=lambda c: c.generation):
            if old.generation <= claim.generation:
                with suppress(OSError):
                    (self.home / old.name).unlink()

    def close(self) -> None:
        """Let all runs go and end the heartbeat."""
        self._stop.set()
        for claim in list(self._held.values()):
            self.release(claim)
        with suppress(OSError):
            self.home.rmdir()  # where it is empty

    def _beat_from_now_on(self) -> None:
        if self._pulse is None:
            self._pulse = threading.Thread(target=self._beat, daemon=True)
            self._pulse.start()

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat_seconds):
            for claim in list(self._held.values()):
                with suppress(OSError):  # a full disk lets a claim go stale, no more
                    os.utime(self.home / claim.name)


def living(folder: str | Path, stale_seconds: float = STALE_SECONDS) -> tuple[Claim, ...]:
    """The claims whose owners are at work, each run once."""
    highest: dict[str, Claim] = {}
    for claim in _read(Path(folder) / "claims"):
        if claim.generation >= highest.get(claim.run_id, claim).generation:
            highest[claim.run_id] = claim
    return tuple(claim for claim in highest.values() if not claim.is_stale(stale_seconds))


def _make(home: Path, claim: Claim) -> bool:
    """Make the file of a claim, whole; False where another process was quicker."""
    content = {**asdict(claim.owner), "made": clock_of(home)}
    folder = temporary_folder(home)
    try:
        whole = folder / claim.name
        whole.write_text(json.dumps(content), encoding="utf-8")
        try:
            os.link(whole, home / claim.name)
        except FileExistsError:
            return whole.stat().st_nlink > 1  # NFS may tell of one's own link
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _read(home: Path, run_id: str = "*") -> Iterator[Claim]:
    """The claims in a folder; what is none, or is gone meanwhile, is left out."""
    now = None
    for path in home.glob(f"{run_id}.[0-9]*"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            stat = path.stat()
            owner = Owner(str(content["host"]), int(content["pid"]), float(content["started"]))
            name, _, generation = path.name.rpartition(".")
            made = float(content["made"])
            now = clock_of(home) if now is None else now
            yield Claim(name, int(generation), owner, now - made, now - stat.st_mtime)
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _highest(claims: Iterator[Claim]) -> Claim | None:
    return max(claims, key=lambda claim: claim.generation, default=None)
