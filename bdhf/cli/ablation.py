"""Commands that take a spec: `plan` and `run`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdhf.cli.app import (
    app,
    counts_in_words,
    err,
    errors_reported,
    holder,
    out,
    say,
    say_counts,
    say_json,
    warn,
)
from bdhf.cli.planned import (
    arms_table,
    power_check_of,
    say_comparisons,
    say_failed,
    say_left,
    say_power,
    say_time,
    warn_of_power,
)
from bdhf.cli.replaced import refuse_another_plan
from bdhf.cli.results import say_report, say_risen
from bdhf.cli.stale import StaleChoice, stale_lines, to_make_again

if TYPE_CHECKING:
    from bdhf.experiments.ablation import Ablation
    from bdhf.experiments.plan.expand import Cell
    from bdhf.experiments.plan.runspec import RunSpec
    from bdhf.experiments.storage.claims import Claim

#: Claim files that a message names, at most.
_FILES = 8

SpecArgument = Annotated[Path, typer.Argument(help="An ablation: a YAML file.", metavar="SPEC")]
Out = Annotated[Path | None, typer.Option("--out", help="Results folder; default results/<name>.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a value of the spec: arms.hf.lr=0.3."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", metavar="ARM|RUN", help="Only these arms, labels (with * and ?) or run ids."
    ),
]
ShardText = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Make only share I of N of the runs, from 1/N to N/N."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Runs at a time; default one per GPU, or cores ÷ threads; 1 to compare seconds.",
    ),
]
NoCheck = Annotated[
    bool,
    typer.Option("--no-check", help="Skip the first update of every arm on synthetic data."),
]
RetryOption = Annotated[
    str | None,
    typer.Option(
        "--retry",
        metavar="STATUSES",
        help="Repeat runs with these statuses: error,oom,timeout or all.",
    ),
]


@app.command()
def run(
    spec: SpecArgument,
    folder: Out = None,
    settings: SetOption = None,
    workers: Workers = None,
    only: Only = None,
    shard: ShardText = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Stop after this many runs.")
    ] = None,
    retry: RetryOption = None,
    stale: StaleChoice = None,
    track: Annotated[
        list[str] | None,
        typer.Option("--track", help="Send runs to a tracker too: tensorboard, mlflow."),
    ] = None,
    no_check: NoCheck = False,
) -> None:
    """Make the missing runs of an ablation, compare the arms and write the report."""
    from bdhf.experiments.observers.progress import watching
    from bdhf.experiments.observers.several import together
    from bdhf.experiments.observers.trackers import tracking
    from bdhf.records import load, rises

    ablation = _open(spec, folder, settings)
    with errors_reported():
        cells = ablation.selected(only or (), shard)
        left = ablation.left(cells, retry)
        again = to_make_again(ablation, cells, left, stale)
    left |= again
    todo = list(left.values())[:limit]
    if not no_check:
        _check(ablation, [cell for cell in cells if cell.run_id in left], todo)
    labels, home = ablation.labels(), ablation.store.folder
    try:
        with (
            errors_reported(),
            tracking(track or (), home, ablation.spec.name, labels, warn) as trackers,
        ):
            warn_of_power(power_check_of(ablation))
            preview = ablation.preview(cells, left)
            say_left(preview, len(todo))
            say_failed(preview, ablation.spec.retry)
            ablation.set_aside([run for run in todo if run.run_id in again])
            with watching(labels, len(todo), out) as watcher:
                observer = together(watcher, trackers)
                ablation.run(
                    todo,
                    workers=workers,
                    observer=observer,
                    waiting=partial(_say_waiting, home),
                    note=warn,
                )
    except KeyboardInterrupt:
        err.print(
            "Interrupted. Finished runs are kept; run the same command to resume.", markup=False
        )
        raise typer.Exit(130) from None
    with errors_reported():
        refuse_another_plan(ablation, f"bdhf run {spec}")
        records = load(home)
        say_report(home, records)
        risen = rises(records.runs, records.curves)
        ids = dict.fromkeys(cell.run_id for cell in cells)
        say_risen({run_id: risen[run_id] for run_id in ids if run_id in risen}, labels)
    statuses = ablation.statuses(cells).values()
    settings_again = "".join(f" --set {shlex.quote(setting)}" for setting in settings or ())
    failed = Counter(str(status) for status in statuses if status.is_missing)
    if failed:
        err.print(
            f"{counts_in_words(failed)}: see the table of runs in the report; "
            f"`bdhf run {spec} --out {home}{settings_again} --retry all` repeats them",
            markup=False,
        )
        raise typer.Exit(1)


@app.command()
def plan(
    spec: SpecArgument,
    folder: Out = None,
    settings: SetOption = None,
    only: Only = None,
    shard: ShardText = None,
    workers: Workers = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Estimate the highest cost of one update of every arm.")
    ] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Time three updates of every arm without a finished run."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON, cell by cell.")
    ] = False,
    no_check: NoCheck = False,
) -> None:
    """Show what `run` would do, and try a first update of every arm; write no results."""
    from bdhf.text.formatting import plain_count

    ablation = _open(spec, folder, settings)
    with errors_reported():
        cells = ablation.selected(only or (), shard)
        left = ablation.left(cells)
    if not no_check:
        _check(ablation, [cell for cell in cells if cell.run_id in left])
    with errors_reported():
        durations = ablation.durations(cells, probing=probe)
        preview = ablation.preview(cells, left, durations)
        stale = ablation.stale(cells, left)
        at_a_time = ablation.workers(workers)
    power = power_check_of(ablation, pilot=True)
    if as_json:
        costs = {"gradients_an_update": ablation.costs(cells)} if cost else {}
        time = {"workers": at_a_time, "seconds_left": preview.seconds_left(at_a_time)}
        others = {"power": asdict(power), "stale": [asdict(arm) for arm in stale]}
        say_json(preview.to_json() | time | others | costs)
        warn_of_power(power)
        return
    out.print(arms_table(preview, ablation.costs(cells) if cost else None))
    say_counts(preview.skipped, "skipped")
    for entry, number in Counter((e.arm, e.why) for e in preview.excluded).items():
        say(f"{plain_count(number, 'combination')} of {entry[0]} excluded: {entry[1]}")
    say_comparisons(preview)
    say_time(preview, at_a_time)
    say_power(power)
    warn_of_power(power)
    for line in stale_lines(stale):
        say(f"stale: {line}")
    say_left(preview, preview.left)
    say_failed(preview, ablation.spec.retry)


def _say_waiting(home: Path, holders: Sequence[Claim]) -> None:
    """Print who makes the runs, and the claims to remove if processes elsewhere have ended."""
    owners = {holder(claim) for claim in holders}
    say(f"waiting for runs of other processes ({len(holders)}): {', '.join(sorted(owners))}")
    files = [str(home / "claims" / c.name) for c in holders if not c.owner.is_here]
    more = f" and {len(files) - _FILES} more" if len(files) > _FILES else ""
    if files:
        say(f"  if they have ended, remove {', '.join(files[:_FILES])}{more} to continue at once")


def _check(ablation: Ablation, cells: Sequence[Cell], todo: Sequence[RunSpec] = ()) -> None:
    """Refuse arms that cannot run, and data of these runs that does not match the problem."""
    with errors_reported():
        for line in ablation.check_arms(cells):
            warn(f"warning: {line}")
        ablation.check_data(todo)


def _open(spec: Path, folder: Path | None, settings: Sequence[str] | None) -> Ablation:
    from bdhf.experiments.ablation import Ablation

    with errors_reported():
        return Ablation.open(spec, folder, settings or ())
