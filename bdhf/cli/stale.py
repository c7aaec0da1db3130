"""Stale runs, made with other code of an own part: reported, and kept or repeated."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bdhf.cli.app import err

if TYPE_CHECKING:
    from bdhf.experiments.ablation import Ablation
    from bdhf.experiments.plan.expand import Cell
    from bdhf.experiments.plan.runspec import RunSpec
    from bdhf.experiments.storage.stale import Stale


class StaleAction(StrEnum):
    """What to do with stale runs."""

    KEEP = "keep"
    RERUN = "rerun"


StaleChoice = Annotated[
    StaleAction | None,
    typer.Option("--stale", help="Runs made with other code of an own part: keep or repeat them."),
]


def stale_lines(arms: Sequence[Stale]) -> list[str]:
    """`hf: 6 runs were made with other code of lab:Chunks; changed since: lab.py`."""
    from bdhf.text.formatting import plain_count

    return [
        f"{arm.arm}: {plain_count(len(arm.run_ids), 'run')} made with other code of "
        f"{', '.join(arm.parts)}; changed since: {', '.join(arm.files)}"
        for arm in arms
    ]


def to_make_again(
    ablation: Ablation, cells: Sequence[Cell], left: dict[str, RunSpec], choice: StaleAction | None
) -> dict[str, RunSpec]:
    """The stale runs to repeat, by id.

    Raises InputError if there are stale runs and no choice.
    """
    from bdhf.records import InputError

    arms = ablation.stale(cells, left)
    if not arms:
        return {}
    lines, folder = stale_lines(arms), ablation.store.folder
    if choice is None:
        raise InputError(
            [
                *lines,
                f"{folder}: choose for these runs: `--stale keep` leaves them as they are; "
                f"`--stale rerun` repeats them, and keeps the old ones in {ablation.store.aside}",
            ]
        )
    if choice is StaleAction.KEEP:
        for line in lines:
            err.print(f"kept: {line}", markup=False)
        return {}
    run_ids = {run_id for arm in arms for run_id in arm.run_ids}
    return {cell.run_id: cell.run for cell in cells if cell.run_id in run_ids}
