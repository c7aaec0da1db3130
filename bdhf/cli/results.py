"""Commands that take results: `status`, `show`, `clean`, `report`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bdhf.cli.app import (
    AsJson,
    Results,
    app,
    clock,
    counts_in_words,
    errors_reported,
    holder,
    out,
    say,
    say_counts,
    say_json,
    say_lines,
    warn,
)

#: Runs that ended above their start and are listed, at most.
_MOST_RISEN = 10

if TYPE_CHECKING:
    from bdhf.experiments.storage.status import AblationStatus
    from bdhf.records import Records
    from bdhf.report.ablation.build import Built


@app.command()
def status(
    results: Results,
    watch: Annotated[
        float | None,
        typer.Option("--watch", min=0.2, metavar="SECONDS", help="Repeat every SECONDS seconds."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which runs are done, running, failed and left, and the time left."""
    from bdhf.experiments.storage.status import ablation_status

    if as_json and watch is not None:
        raise typer.BadParameter("give --json or --watch, not both")
    with errors_reported():
        now = ablation_status(results)
    if as_json:
        say_json(now.to_json())
        return
    if watch is None:
        out.print(_status_table(now))
    else:
        now = _watch(results, now, watch)
    _say_details(now)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's folder, or the beginning of its id.")],
    results: Annotated[
        Path | None,
        typer.Option("--in", help="The results folder; default: all in results/."),
    ] = None,
) -> None:
    """Show one run: its settings, its end, the last row of its curve, its machine."""
    from bdhf.experiments.storage.show import find_run, run_detail

    with errors_reported():
        sections = run_detail(find_run(run, results))
    for title, content in sections.items():
        out.print(escape(title), style="bold")
        if isinstance(content, str):
            say_lines(indent(content.rstrip(), "  "))
            continue
        width = max(map(len, content), default=0)
        for key, value in content.items():
            say(f"  {key:<{width}}  {value}")


@app.command()
def clean(
    results: Results,
    failed: Annotated[
        bool,
        typer.Option("--failed", help="Runs that ended as error, oom or timeout, or are torn."),
    ] = False,
    unplanned: Annotated[
        bool, typer.Option("--foreign", help="Runs that are not in the plan (any more).")
    ] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed.")] = False,
) -> None:
    """Remove runs, so that `bdhf run` makes them again; runs that are under way stay."""
    from bdhf.experiments.storage.clean import Doomed, removable, remove
    from bdhf.text.formatting import plain_count

    if not (failed or unplanned):
        raise typer.BadParameter("give --failed, --foreign or both")
    doomed = Doomed(failed=failed, unplanned=unplanned)
    with errors_reported():
        reasons = removable(results, doomed)
        for run_id, why in reasons.items():
            say(f"{run_id}: {why}")
        gone = list(reasons) if dry else remove(results, reasons, doomed)
    say(
        f"{plain_count(len(gone), 'run')} {'would be removed' if dry else 'removed'} from {results}"
    )
    if len(gone) < len(reasons):
        say(f"{len(reasons) - len(gone)} kept: another process has claimed them meanwhile")


@app.command()
def report(
    results: Results,
    anonymous: Annotated[
        bool,
        typer.Option(
            "--anonymous",
            help="Write report_anonymous.html, for a double-blind review: no host, path, commit or "
            "comment.",
        ),
    ] = False,
) -> None:
    """Compare the arms of a results folder again and rewrite its report; of a study, its page."""
    from bdhf.records import STUDY_FILE

    with errors_reported():
        if (results / STUDY_FILE).exists():
            say_study(results, anonymous=anonymous)
            return
        say_report(results, fresh(results), anonymous=anonymous)


def fresh(results: Path) -> Records:
    """Collect and load a results folder; if it is read-only, load what it would hold."""
    from bdhf.records import collect, collected, load
    from bdhf.records.disk.files import if_writable

    with if_writable() as unwritten:
        collect(results)
    return load(results, collected(results)) if unwritten else load(results)


def say_report(results: Path, records: Records | None = None, *, anonymous: bool = False) -> None:
    """Write the report of a folder, or of its records; print the verdicts and the path."""
    from bdhf.report import build

    _say_built(build(results, records, anonymous=anonymous))


def say_study(folder: Path, *, anonymous: bool = False) -> None:
    """Write the page of a study; print its results and its path."""
    from bdhf.report.study.render import build_study

    _say_built(build_study(folder, anonymous=anonymous))


def _say_built(built: Built) -> None:
    for sentence in built.sentences:
        say(sentence)
    if built.unwritten:
        kept = "the old tables, figures and page stay"
        warn(f"{built.path}: not written: {built.unwritten}; {kept}")
    else:
        say(f"report: {built.path}")


def _status_table(now: AblationStatus) -> Table:
    """One row per arm."""
    table = Table(title=_headline(now), title_justify="left")
    table.add_column("arm", overflow="fold")
    for number in ("planned", "ended", "running"):
        table.add_column(number, justify="right")
    table.add_column("statuses")
    for arm in now.arms:
        ended = arm.statuses.total() - arm.statuses["skipped"]
        words = counts_in_words(arm.statuses) or "none yet"
        table.add_row(escape(arm.label), str(arm.planned), str(ended), str(arm.running), words)
    return table


def _headline(now: AblationStatus) -> str:
    """`3 done, 1 failed, 2 running, 4 left: about 3 min with 2 at a time`."""
    counts = {
        "done": now.done,
        "diverged": now.diverged,
        "failed": now.failed,
        "running": len(now.running),
        "left": now.left,
    }
    counts_in_words = [f"{n} {name}" for name, n in counts.items() if n or name == "done"]
    if now.seconds_left is None:
        return ", ".join(counts_in_words)
    time = f"about {clock(now.seconds_left)} with {now.workers} at a time"
    return f"{', '.join(counts_in_words)}: {time}"


def _watch(results: Path, now: AblationStatus, seconds: float) -> AblationStatus:
    """Repeat the table until no run is left or the user interrupts."""
    from bdhf.experiments.storage.status import ablation_status

    live = Live(_status_table(now), console=out, auto_refresh=False)
    with errors_reported(), suppress(KeyboardInterrupt), live:
        while now.left:
            time.sleep(seconds)
            now = ablation_status(results)
            live.update(_status_table(now), refresh=True)
    return now


def _say_details(now: AblationStatus) -> None:
    """Print the runs under way, the skipped runs and the problems."""
    for claim in now.running:
        since = f", for {clock(max(time.time() - claim.made, 0.0))}" if claim.owner.pid else ""
        say(f"running {now.labels[claim.run_id]} ({claim.run_id}): {holder(claim)}{since}")
    say_counts(Counter(now.skipped), "skipped")
    say_risen(now.risen, now.labels)
    for line in now.troubles:
        say(line)


def say_risen(risen: Mapping[str, object], labels: Mapping[str, str]) -> None:
    """Print a line for each run that is done and ended above its first loss, ten at most."""
    for run_id, rise in list(risen.items())[:_MOST_RISEN]:
        say(f"{labels[run_id]} ({run_id}): done, but ended above its start: {rise}")
    if len(risen) > _MOST_RISEN:
        say(f"and {len(risen) - _MOST_RISEN} more: the report and `bdhf status --json` have all")
