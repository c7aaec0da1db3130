"""Commands that take a spec: `plan` and `run`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from bdhf.cli.app import (
    app,
    clock,
    err,
    holder,
    in_words,
    out,
    say,
    say_counts,
    say_json,
    told,
)
from bdhf.cli.results import say_report

if TYPE_CHECKING:
    from bdhf.experiments.ablation import Ablation
    from bdhf.experiments.claims import Claim
    from bdhf.experiments.outline import ArmOutline, Outline

ROWS = 60  # arms of a plan that are shown one by one

Spec = Annotated[Path, typer.Argument(help="An ablation: a YAML file.", metavar="SPEC")]
Out = Annotated[Path | None, typer.Option("--out", help="Results folder; default results/<name>.")]
Settings = Annotated[
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
    typer.Option("--shard", metavar="I/N", help="Only share I of N of the runs, from 1/N to N/N."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Runs at a time; default one a GPU, or cores ÷ threads. 1 to time."
    ),
]
Retry = Annotated[
    str | None,
    typer.Option(
        "--retry", metavar="STATUSES", help="Run again what ended so: error,oom,timeout or all."
    ),
]


@app.command()
def run(
    spec: Spec,
    folder: Out = None,
    settings: Settings = None,
    workers: Workers = None,
    only: Only = None,
    shard: ShardText = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many runs, then stop.")
    ] = None,
    retry: Retry = None,
    track: Annotated[
        list[str] | None,
        typer.Option("--track", help="Also tell a tracker: tensorboard, mlflow."),
    ] = None,
) -> None:
    """Run what is missing of an ablation, compare the arms and write the report."""
    from bdhf.experiments.observe import watching
    from bdhf.experiments.observers import together
    from bdhf.experiments.trackers.table import tracking

    ablation = _open(spec, folder, settings)
    with told():
        cells = ablation.selected(only or (), shard)
        left = ablation.unfinished(cells, retry)
    todo = left[:limit]
    labels, home = ablation.labels(), ablation.store.folder
    try:
        with told(), tracking(track or (), home, ablation.spec.name, labels, _warn) as trackers:
            _warn_of_power(ablation)
            _say_left(ablation.outline(cells, {}), len(left), len(todo))
            with watching(labels, len(todo), out) as watcher:
                observer = together(watcher, trackers)
                ablation.run(todo, workers=workers, observer=observer, waiting=_say_waiting)
    except KeyboardInterrupt:
        err.print("interrupted: what has finished is kept; the same command goes on", markup=False)
        raise typer.Exit(130) from None
    with told():
        say_report(home)
    statuses = ablation.statuses(cells).values()
    failed = Counter(str(status) for status in statuses if status.is_missing)
    if failed:
        err.print(
            f"{in_words(failed)}: see the table of runs in the report; "
            f"`bdhf run {spec} --out {home} --retry all` tries them again",
            markup=False,
        )
        raise typer.Exit(1)


@app.command()
def plan(
    spec: Spec,
    folder: Out = None,
    settings: Settings = None,
    only: Only = None,
    shard: ShardText = None,
    workers: Workers = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Estimate what one update of every arm costs at most.")
    ] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Time three updates of every arm of which no run has ended."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON, cell by cell.")
    ] = False,
) -> None:
    """Show what `run` would do, without running or writing anything."""
    ablation = _open(spec, folder, settings)
    with told():
        cells = ablation.selected(only or (), shard)
        outline = ablation.outline(cells, ablation.durations(cells, probing=probe))
    at_a_time = ablation.workers(workers)
    if as_json:
        costs = {"gradients_an_update": ablation.costs(cells)} if cost else {}
        time = {"workers": at_a_time, "seconds_left": outline.seconds_left(at_a_time)}
        say_json(outline.to_json() | time | {"power": _power(ablation)} | costs)
        _warn_of_power(ablation)
        return
    out.print(_table(outline, ablation.costs(cells) if cost else None))
    say_counts(outline.skipped, "skipped")
    for entry, number in Counter((e.arm, e.why) for e in outline.excluded).items():
        say(f"{number} combinations of {entry[0]} excluded: {entry[1]}")
    _say_comparisons(outline)
    _say_time(outline, at_a_time)
    _warn_of_power(ablation)
    _say_left(outline, outline.left, outline.left)


def _say_waiting(holders: Sequence[Claim]) -> None:
    owners = {holder(claim) for claim in holders}
    say(f"waiting for {len(holders)} of the runs: {', '.join(sorted(owners))} at work on them")


def _warn(line: str) -> None:
    err.print(line, markup=False)


def _open(spec: Path, folder: Path | None, settings: Sequence[str] | None) -> Ablation:
    from bdhf.experiments.ablation import Ablation

    with told():
        return Ablation.open(spec, folder, settings or ())


def _table(outline: Outline, costs: dict[str, float] | None) -> Table:
    """A row an arm; of many, a row for all that the spec calls by one name."""
    columns = ["arm", "seeds", "runs", "still to do", "a run"]
    columns += ["gradients an update"] if costs else []
    table = Table(*columns, title=escape(outline.name))
    together: dict[str, list[ArmOutline]] = {}
    for arm in outline.arms:
        many = len(outline.arms) > ROWS
        together.setdefault(arm.name if many else arm.label, []).append(arm)
    for label, arms in together.items():
        seeds = sorted({seed for arm in arms for seed in arm.seeds})
        table.add_row(
            escape(label) + (f" ({len(arms)} combinations)" if len(arms) > 1 else ""),
            f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0]),
            str(sum(len(arm.seeds) for arm in arms)),
            str(sum(arm.left for arm in arms)),
            _range([arm.seconds for arm in arms], clock),
            *([_range([costs[arm.label] for arm in arms], "{:,.1f}".format)] if costs else []),
        )
    return table


def _range(values: Sequence[float | None], words: Callable[[float], str]) -> str:
    """The least and the most of some numbers in words; "?" where one is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "?"
    least, most = words(min(known)), words(max(known))
    return least if least == most else f"{least} to {most}"


def _say_comparisons(outline: Outline) -> None:
    lines = [
        f"compare {entry.name}: {entry.candidate} against {entry.baseline}, "
        f"{entry.axis} to {target.label}"
        for entry in outline.comparisons
        for target in outline.targets
    ]
    for line in lines[:ROWS]:
        say(line)
    if len(lines) > ROWS:
        say(f"… and {len(lines) - ROWS} comparisons more; --json lists all")


def _say_time(outline: Outline, workers: int) -> None:
    """Say how long it will take, and from what that is known."""
    if not outline.left:
        return
    seconds = outline.seconds_left(workers)
    if seconds is None:
        unknown = Counter(arm.source for arm in outline.arms if arm.left and arm.seconds is None)
        why = "; ".join(f"{number} arms: {source}" for source, number in unknown.items())
        say(f"time: not known ({why}); --probe times three updates of each")
        return
    sources = sorted({arm.source for arm in outline.arms if arm.left})
    at_a_time = f"{workers} run{'s' * (workers > 1)} at a time"
    less = "; less where targets end runs" if "probe" in sources else ""
    say(f"time: about {clock(seconds)} with {at_a_time}, from {' and '.join(sources)}{less}")


def _power(ablation: Ablation) -> dict[str, Any]:
    """How many seeds its comparisons need to be decided at all, and how many there are."""
    from bdhf.stats.paired import pairs_needed

    spec = ablation.spec
    tests = len(ablation.plan.comparisons) * len(spec.targets)
    return {
        "tests": tests,
        "alpha": spec.alpha,
        "needed": pairs_needed(spec.alpha / tests) if tests else 0,
        "seeds": spec.seeds.count,
    }


def _warn_of_power(ablation: Ablation) -> None:
    """Say before anything is run that its comparisons cannot be decided, if so."""
    from bdhf.stats.words import count

    power = _power(ablation)
    if power["seeds"] < power["needed"]:
        err.print(
            f"warning: {count(power['tests'], 'test')} at alpha {power['alpha']:g} cannot be "
            f"decided with fewer than {power['needed']} seeds; the spec has {power['seeds']}",
            markup=False,
        )


def _say_left(outline: Outline, left: int, todo: int) -> None:
    """`small: 6 runs, 2 done, 4 to do, 1 of them now -> results/small`."""
    skipped = sum(outline.skipped.values())
    now = f", {todo} of them now" if todo < left else ""
    left_out = f", {skipped} skipped" if skipped else ""
    say(
        f"{outline.name}: {outline.runs} runs, {outline.runs - left - skipped} done, "
        f"{left} to do{now}{left_out} -> {outline.folder}"
    )
