"""A folder in which another spec has been run meanwhile: no verdict is given on that one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from bdhf.cli.app import err

if TYPE_CHECKING:
    from bdhf.experiments.ablation import Ablation


def refuse_another_plan(ablation: Ablation, command: str) -> None:
    """End with exit code 1 where an ablation's folder is of another spec by now.

    `command` is the one that made its runs. Raises InputError where the folder has no plan any
    more.
    """
    other = ablation.replaced()
    if not other:
        return
    err.print(
        f"{ablation.store.folder}: another spec has been run there meanwhile, {other}: no verdict "
        f"is given here. The runs that `{command}` made are kept in {ablation.store.runs}: the "
        "same command again brings its plan back, or give it an --out of its own",
        markup=False,
    )
    raise typer.Exit(1)
