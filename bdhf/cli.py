"""The command line: parse, call one function, print.

Exit codes: 0 done, 1 a run failed, 2 a bad spec or command line, 130 interrupted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from bdhf.experiments.ablation import Ablation

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

Spec = Annotated[Path, typer.Argument(help="An ablation: a YAML file.", metavar="SPEC")]
Results = Annotated[
    Path, typer.Argument(help="The results folder of an ablation.", metavar="RESULTS")
]
Out = Annotated[Path | None, typer.Option("--out", help="Results folder; default results/<name>.")]


def _version(wanted: bool) -> None:
    if wanted:
        from bdhf import __version__

        out.print(f"bdhf {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Benchmarks and ablations of block-diagonal Hessian-free optimization."""


def main() -> None:
    """Entry point of the `bdhf` command."""
    app()


@app.command()
def run(
    spec: Spec,
    folder: Out = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Runs at a time; default cores ÷ threads."),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Run again what ended as error, oom or timeout.")
    ] = False,
) -> None:
    """Run what is missing of an ablation, compare the arms and write the report."""
    from bdhf.experiments.observe import watching

    ablation = _open(spec, folder)
    todo = ablation.store.unfinished(ablation.cells, retry)
    _say_plan(ablation, len(todo))
    try:
        with _told(), watching(ablation.labels(), len(todo), out) as observer:
            statuses = ablation.run(todo, workers=workers, observer=observer)
    except KeyboardInterrupt:
        err.print("interrupted: what has finished is kept; the same command goes on", markup=False)
        raise typer.Exit(130) from None
    _say_report(ablation.store.folder)
    failed = Counter(str(status) for status in statuses.values() if status.is_missing)
    if failed:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(failed.items()))
        err.print(
            f"{counts}: see the table of runs in the report; "
            f"`bdhf run {spec} --out {ablation.store.folder} --retry` tries them again",
            markup=False,
        )
        raise typer.Exit(1)


@app.command()
def plan(
    spec: Spec,
    folder: Out = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Estimate what one update of every arm costs at most.")
    ] = False,
) -> None:
    """Show what `run` would do, without running or writing anything."""
    ablation = _open(spec, folder)
    todo = {run.run_id for run in ablation.store.unfinished(ablation.cells)}
    columns = ["arm", "seeds", "runs", "still to do", *["gradients an update"] * cost]
    table = Table(*columns, title=ablation.spec.name)
    for arm in ablation.plan.arms:
        cells = [cell for cell in ablation.cells if cell.arm == arm.label]
        seeds = f"{cells[0].seed} to {cells[-1].seed}"
        left = sum(cell.run.run_id in todo for cell in cells)
        row = [escape(arm.label), seeds, str(len(cells)), str(left)]
        table.add_row(*row, *[f"{ablation.cost(cells[0]):,.1f}"] * cost)
    out.print(table)
    _say_skipped(ablation.skipped().values())
    for entry in ablation.plan.comparisons:
        for target in ablation.spec.targets:
            out.print(
                f"compare {entry.name}: {entry.candidate} against {entry.baseline}, "
                f"{entry.axis} to {target.label}",
                markup=False,
            )
    _say_plan(ablation, len(todo))


@app.command()
def status(results: Results) -> None:
    """Show how many runs of a results folder have ended, how, and which failed."""
    from bdhf.records import planned

    with _told():
        cells = planned(results)
    table = Table("arm", "planned", "ended", "statuses")
    for arm, rows in cells.groupby("arm", sort=False):
        counts = Counter(rows["status"].dropna())
        words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        ended = str(counts.total() - counts["skipped"])
        table.add_row(escape(str(arm)), str(len(rows)), ended, words or "none yet")
    out.print(table)
    _say_skipped(cells.loc[cells["status"] == "skipped", "reason"])
    for row in cells.itertuples():
        if isinstance(row.status, str) and row.status not in ("done", "skipped"):
            line = f"{row.arm} seed {row.seed} ({row.run_id}): {row.status}: {row.reason}"
            out.print(line, markup=False)


@app.command()
def report(results: Results) -> None:
    """Compare the arms of a results folder again and rewrite its report."""
    from bdhf.records import collect

    with _told():
        collect(results)
        _say_report(results)


@app.command("list")
def list_parts(
    compatibility: Annotated[
        bool,
        typer.Option("--compatibility", help="Show which parts of block_hf go together instead."),
    ] = False,
) -> None:
    """List every problem, curvature, partition, solver and optimizer that a spec may name."""
    from bdhf.experiments.build import catalogue

    if compatibility:
        _say_compatibility()
        return
    for kind, parts in catalogue().items():
        out.print(f"[bold]{kind}[/bold]")
        width = max(map(len, parts))
        for name, line in parts.items():
            out.print(f"  {name:<{width}}  {line}", markup=False)


def _open(spec: Path, folder: Path | None) -> Ablation:
    from bdhf.experiments.ablation import Ablation

    with _told():
        return Ablation.open(spec, folder)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what is wrong with the input into lines on stderr and exit code 2."""
    from bdhf.records import InputError

    try:
        yield
    except InputError as error:
        for line in error.lines:
            err.print(line, markup=False)
        raise typer.Exit(2) from None


def _say_plan(ablation: Ablation, todo: int) -> None:
    """Say what there is to do, and whether its comparisons can be decided at all."""
    from bdhf.stats.paired import pairs_needed
    from bdhf.stats.words import count

    spec = ablation.spec
    tests = len(ablation.plan.comparisons) * len(spec.targets)
    needed = pairs_needed(spec.alpha / tests) if tests else 0
    if spec.seeds.count < needed:
        err.print(
            f"warning: {count(tests, 'test')} at alpha {spec.alpha:g} cannot be decided with fewer "
            f"than {needed} seeds; the spec has {spec.seeds.count}",
            markup=False,
        )
    runs, skipped = len(ablation.labels()), len(ablation.skipped())
    left_out = f", {skipped} skipped" if skipped else ""
    out.print(
        f"{ablation.spec.name}: {runs} runs, {runs - todo - skipped} done, {todo} to do{left_out} "
        f"-> {ablation.store.folder}",
        markup=False,
    )


def _say_skipped(reasons: Iterable[str]) -> None:
    """Say how many runs the plan leaves out, by reason."""
    for reason, runs in Counter(reasons).items():
        out.print(f"{runs} skipped: {reason}", markup=False)


def _say_compatibility() -> None:
    """Print curvature × partition, a column a solver: yes, or the number of the reason below."""
    from bdhf.experiments.compatibility import CONDITIONS, triples

    reasons: dict[str, int] = {}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for curvature, partition, solver, reason in triples():
        place = str(reasons.setdefault(reason, len(reasons) + 1)) if reason else "yes"
        rows.setdefault((curvature, partition), {})[solver] = place
    table = Table("curvature", "partition", *next(iter(rows.values())))
    for names, places in rows.items():
        table.add_row(*names, *places.values())
    out.print(table)
    for reason, number in reasons.items():
        out.print(f"{number}: {reason}", markup=False)
    for solver, condition in CONDITIONS.items():
        out.print(f"{solver}: {condition}", markup=False)


def _say_report(results: Path) -> None:
    """Write the report; print the verdicts and where it is."""
    from bdhf.report import build

    sentences, path = build(results)
    for sentence in sentences:
        out.print(sentence, markup=False)
    out.print(f"report: {path}", markup=False)


if __name__ == "__main__":
    main()
