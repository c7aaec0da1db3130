"""Which failed runs are repeated, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bdhf.experiments.errors import unknown
from bdhf.experiments.spec.schema import Retry
from bdhf.records import FAILED, InputError, Status


@dataclass(frozen=True)
class Again:
    """The policy of the spec, and the statuses that the command line asks to repeat once."""

    policy: Retry
    asked: frozenset[Status] = frozenset()

    def wants(self, status: Mapping[str, Any], *, once: bool = True) -> bool:
        """Whether a run with this status.json is to be repeated.

        `once`: the command line still counts; it does not for a run that this command has tried.
        """
        ended = Status(status["status"])
        if ended not in FAILED:
            return False
        attempts = int(status.get("attempts", 1))
        return (once and ended in self.asked) or attempts <= getattr(self.policy, ended)


def again(policy: Retry, asked: str | None = None) -> Again:
    """Read the statuses of the command line: separated by commas, or `all`.

    Raises InputError.

    >>> sorted(again(Retry(), "oom,timeout").asked)
    [<Status.OOM: 'oom'>, <Status.TIMEOUT: 'timeout'>]
    """
    allowed = [*map(str, FAILED), "all"]
    names = asked.split(",") if asked is not None else []
    for name in names:
        if name not in allowed:
            raise InputError([f"--retry {asked}: {unknown('status', name, allowed)}"])
    wanted = FAILED if "all" in names else tuple(Status(name) for name in names)
    return Again(policy, frozenset(wanted))
