"""Commands that take results: `status`, `show`, `clean`, `report`."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bdhf.cli.app import Results, app, clock, in_words, out, say, say_counts, told

if TYPE_CHECKING:
    from bdhf.experiments.standing import Standing


@app.command()
def status(
    results: Results,
    watch: Annotated[
        float | None,
        typer.Option("--watch", min=0.2, metavar="SECONDS", help="Show it again every so often."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what of a results folder is done, running, failed and left, and the time left."""
    from bdhf.experiments.standing import standing

    with told():
        now = standing(results)
    if as_json:
        typer.echo(now.to_json())
        return
    if watch is None:
        out.print(_standing(now))
        _say_details(now)
        return
    with told(), Live(_standing(now), console=out, auto_refresh=False) as live:
        while now.left:
            time.sleep(watch)
            now = standing(results)
            live.update(_standing(now), refresh=True)
    _say_details(now)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's folder, or the beginning of its id.")],
    results: Annotated[
        Path | None,
        typer.Option("--in", help="The results folder; default every one in results/."),
    ] = None,
) -> None:
    """Show one run: what it is, how it ended, the last row of its curve, where it was made."""
    from bdhf.experiments.detail import detail, find

    with told():
        found = detail(find(run, results))
    for title, rows in found.items():
        out.print(f"[bold]{title}[/bold]")
        width = max(map(len, rows), default=0)
        for key, value in rows.items():
            say(f"  {key:<{width}}  {value}")


@app.command()
def clean(
    results: Results,
    failed: Annotated[
        bool, typer.Option("--failed", help="Runs that ended as error, oom or timeout.")
    ] = False,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="Runs that are not in the plan (any more).")
    ] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove runs, so that `bdhf run` makes them again; runs that are under way stay."""
    from bdhf.experiments.tidy import removable, remove

    if not (failed or foreign):
        raise typer.BadParameter("say what to remove: --failed, --foreign or both")
    with told():
        found = removable(results, failed=failed, foreign=foreign)
        for run_id, why in found.items():
            say(f"{run_id}: {why}")
        if not dry:
            remove(results, found)
    say(f"{len(found)} runs {'would be removed' if dry else 'removed'} from {results}")


@app.command()
def report(results: Results) -> None:
    """Compare the arms of a results folder again and rewrite its report."""
    from bdhf.records import collect

    with told():
        collect(results)
        say_report(results)


def say_report(results: Path) -> None:
    """Write the report; print the verdicts and where it is."""
    from bdhf.report import build

    sentences, path = build(results)
    for sentence in sentences:
        say(sentence)
    say(f"report: {path}")


def _standing(now: Standing) -> Table:
    """A row an arm."""
    table = Table("arm", "planned", "ended", "running", "statuses", title=_headline(now))
    for arm in now.arms:
        ended = arm.statuses.total() - arm.statuses["skipped"]
        words = in_words(arm.statuses) or "none yet"
        table.add_row(escape(arm.label), str(arm.planned), str(ended), str(arm.running), words)
    return table


def _headline(now: Standing) -> str:
    left = f", {now.left} left" if now.left else ""
    time_left = f", about {clock(now.seconds_left)}" if now.seconds_left is not None else ""
    return f"{now.done} done, {len(now.running)} running, {now.failed} failed{left}{time_left}"


def _say_details(now: Standing) -> None:
    """Who runs what, what is skipped, and what went wrong."""
    for claim in now.running:
        since = clock(max(time.time() - claim.made, 0.0))
        owner = f"process {claim.owner.pid} on {claim.owner.host}"
        say(f"running {now.labels[claim.run_id]} ({claim.run_id}): {owner}, for {since}")
    say_counts(Counter(now.skipped), "skipped")
    for line in now.troubles:
        say(line)
