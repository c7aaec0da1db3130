"""Which runs that left no outcome are tried again, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bdhf.experiments.errors import unknown
from bdhf.experiments.spec.schema import Retry
from bdhf.records import FAILED, InputError, Status


@dataclass(frozen=True)
class Again:
    """The spec's policy, and what the command line asks for beside: once more, each of these."""

    policy: Retry
    asked: frozenset[Status] = frozenset()

    def wants(self, status: Mapping[str, Any], *, once: bool = True) -> bool:
        """Whether a run with this status.json is to be tried again.

        `once`: what the command line asks for still counts; it does not for a run that this command
        has tried itself.
        """
        ended = Status(status["status"])
        if ended not in FAILED:
            return False
        attempts = int(status.get("attempts", 1))
        return (once and ended in self.asked) or attempts <= getattr(self.policy, ended)


def again(policy: Retry, asked: str | None = None) -> Again:
    """Read what the command line asks for: statuses with commas between, or `all`.

    Raises InputError.

    >>> sorted(again(Retry(), "oom,timeout").asked)
    [<Status.OOM: 'oom'>, <Status.TIMEOUT: 'timeout'>]
    """
    known = [*map(str, FAILED), "all"]
    names = asked.split(",") if asked is not None else []
    for name in names:
        if name not in known:
            raise InputError([f"--retry {asked}: {unknown('status', name, known)}"])
    wanted = FAILED if "all" in names else tuple(Status(name) for name in names)
    return Again(policy, frozenset(wanted))
