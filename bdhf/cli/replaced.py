"""A results folder in which another spec was run meanwhile: no verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from bdhf.cli.app import err

if TYPE_CHECKING:
    from bdhf.experiments.ablation import Ablation


def refuse_another_plan(ablation: Ablation, command: str) -> None:
    """Exit with code 1 if the folder of an ablation now has the plan of another spec.

    `command` made the runs of the ablation. Raises InputError if the folder has no plan any more.
    """
    other = ablation.replaced()
    if not other:
        return
    err.print(
        f"{ablation.store.folder}: no verdict, because another spec was run there meanwhile: "
        f"{other}. {ablation.store.runs} keeps the runs of `{command}`: run it again to restore "
        "its plan, or give it another --out",
        markup=False,
    )
    raise typer.Exit(1)
