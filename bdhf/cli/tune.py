"""The command `tune`: a study, its held-out comparison, its report, and the tuned spec."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdhf.cli.ablation import NoCheck
from bdhf.cli.app import app, counts_in_words, err, errors_reported, out, say, warn
from bdhf.cli.replaced import refuse_another_plan
from bdhf.cli.results import say_study
from bdhf.cli.stale import stale_lines

if TYPE_CHECKING:
    from bdhf.records import Tuning
    from bdhf.tuning.storage.storage import StudyLocation
    from bdhf.tuning.study.study import Study


@app.command()
def tune(
    study: Annotated[Path, typer.Argument(help="A study: a YAML file.", metavar="STUDY")],
    folder: Annotated[
        Path | None, typer.Option("--out", help="Results folder; default results/studies/<name>.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set a value of the study: trials=12."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Arms at a time, one process each; default cores ÷ threads; 1 to compare seconds.",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="A database for many workers, postgresql+psycopg://…; default a journal file. Its "
            "password: in ~/.pgpass or PGPASSWORD.",
        ),
    ] = None,
    worker: Annotated[
        bool,
        typer.Option("--worker", help="Join a study, on any machine: make trials only."),
    ] = False,
    heartbeat: Annotated[
        int,
        typer.Option(
            "--heartbeat",
            min=1,
            help="Seconds between a worker's heartbeats in a database; three times as long without "
            "one, and its trial is repeated.",
        ),
    ] = 20,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="Write the tuned spec: ablations/tuned/…"),
    ] = None,
    no_check: NoCheck = False,
) -> None:
    """Tune the arms of an ablation with equal budgets, then compare on held-out seeds."""
    from bdhf.experiments.engines.interrupt import interruptible
    from bdhf.tuning.storage.storage import StudyLocation, refuse_other_contents
    from bdhf.tuning.study.study import open_study

    if worker and write is not None:
        raise typer.BadParameter("give --worker or --write, not both: a worker makes trials only")
    with errors_reported():
        opened = open_study(study, settings or ())
        home = folder or Path("results/studies") / opened.name
        location = StudyLocation(home, storage, heartbeat)
        refuse_other_contents(opened, location.folder)
        _warn_of_password(location)
        if not no_check:
            _check(opened, location)
        _say_begun(opened, location)
        try:
            with interruptible():
                if worker:
                    _join(opened, location)
                    return
                _tune(opened, location, workers)
                _finish(opened, location, workers, write)
        except KeyboardInterrupt:
            err.print("Interrupted. Finished runs are kept; run the same command to resume.")
            raise typer.Exit(130) from None


def _say_begun(study: Study, location: StudyLocation) -> None:
    spec = study.spec
    kept = "the database" if location.is_shared else str(location.journal)
    say(
        f"{study.name}: {spec.trials} trials × {spec.seeds.count} seeds of each of "
        f"{len(study.cells)} arms, kept in {kept} -> {location.folder}"
    )
    if spec.held_out:
        _warn_of_power(study)


def _check(study: Study, location: StudyLocation) -> None:
    """Refuse arms and choices that cannot run, before any write, if any trial is left."""
    from bdhf.tuning.study.check import check_study, is_finished

    if not is_finished(study, location.folder):
        for line in check_study(study):
            warn(f"warning: {line}")


def _warn_of_password(location: StudyLocation) -> None:
    """Warn of a password on the command line, which others can read."""
    from bdhf.tuning.storage.address import has_password

    if location.url is not None and has_password(location.url):
        err.print(
            "warning: the list of processes shows the password in --storage to every user of this "
            "machine: put it into ~/.pgpass or PGPASSWORD instead",
            markup=False,
        )


def _warn_of_power(study: Study) -> None:
    """Warn, before any trial, of a comparison on held-out seeds that cannot be decided."""
    from bdhf.stats.inference.paired import pairs_needed
    from bdhf.tuning.outcome.held_out import count_tests

    tests, seeds = count_tests(study), len(study.held_out_seeds)
    alpha = study.variants[0].spec.alpha
    needed = pairs_needed(alpha / tests)
    if seeds < needed:
        err.print(
            f"warning: {tests} tests on held-out seeds at alpha {alpha:g} cannot be decided with "
            f"fewer than {needed} seeds; the ablation has {seeds}: `set: {{seeds.count: "
            f"{needed}}}`",
            markup=False,
        )


def _tune(study: Study, location: StudyLocation, workers: int | None) -> None:
    """Make all trials in a pool of workers; workers elsewhere may share a database with it."""
    from bdhf.experiments.engines.local import default_workers
    from bdhf.experiments.run.provenance import resolve_devices
    from bdhf.tuning.outcome.collect import stored_trials
    from bdhf.tuning.outcome.stale import other_code
    from bdhf.tuning.workers.arm_pool import ArmPool

    with location.losable():
        arms = stored_trials(study, location.open())
    for line in other_code(arms, location.folder):
        err.print(f"warning: {line}", markup=False)
    left = [arm.cell.label for arm in arms if len(arm.trials) < study.spec.trials]
    first = study.variants[0].spec
    default = default_workers(first.threads, resolve_devices(first.device))
    _warn_of_company(study, workers or default)
    ArmPool(study, location, workers or default, say).tune(left)


def _warn_of_company(study: Study, workers: int) -> None:
    """Warn if seconds are tuned while several arms share the machine."""
    counted = {study.variants[0].spec.budget.axis, *study.spec.objectives}
    if workers > 1 and counted & {"seconds", "seconds_to_target"}:
        err.print(
            f"warning: seconds are tuned with up to {workers} arms at a time, and each slows the "
            "others: `--workers 1` tunes one arm at a time",
            markup=False,
        )


def _join(study: Study, location: StudyLocation) -> None:
    from bdhf.tuning.workers.progress import line_of
    from bdhf.tuning.workers.trial_loop import TrialLoop

    loop = TrialLoop(study, location, lambda *of_trial: say(line_of(*of_trial)))
    loop.run([cell.label for cell in study.cells])


def _finish(study: Study, location: StudyLocation, workers: int | None, write: Path | None) -> None:
    """Collect, compare on held-out seeds, write the report and the tuned spec."""
    from bdhf.tuning.outcome.collect import collect_study
    from bdhf.tuning.outcome.tuned_spec import write_tuned

    record = collect_study(study, location)
    failed = _hold_out(study, record, location, workers) if study.spec.held_out else Counter()
    say_study(location.folder)
    if write is not None:
        write_tuned(study, record, write)
        say(f"tuned spec: {write}")
        _warn_of_twins(write)
    if failed:
        err.print(f"{counts_in_words(failed)} of the held-out runs: see their report", markup=False)
        raise typer.Exit(1)


def _warn_of_twins(tuned: Path) -> None:
    """Warn if tuning made two arms equal, so that the tuned spec cannot be run as it is."""
    from bdhf.experiments.ablation import Ablation
    from bdhf.records import InputError

    try:
        Ablation.open(tuned)
    except InputError as error:
        for line in error.lines:
            err.print(f"warning: {line}", markup=False)


def _hold_out(
    study: Study, record: Tuning, location: StudyLocation, workers: int | None
) -> Counter[str]:
    """Run the comparison on held-out seeds, and write its report; return the failed runs."""
    from bdhf.experiments.observers.progress import watching
    from bdhf.report import build
    from bdhf.tuning.outcome.held_out import held_out

    if any(arm.best is None for arm in record.arms):
        return Counter()
    ablation = held_out(study, record, location.folder)
    left = ablation.left(ablation.cells)
    for line in stale_lines(ablation.stale(ablation.cells, left)):
        err.print(f"warning: {line}; remove {ablation.store.folder} to repeat them", markup=False)
    runs = len({cell.run_id for cell in ablation.plan.cells})
    say(f"held out: {runs} runs on {len(study.held_out_seeds)} seeds")
    with watching(ablation.labels(), len(left), out) as watcher:
        ablation.run(list(left.values()), workers=workers, observer=watcher, note=warn)
    refuse_another_plan(ablation, f"bdhf tune {study.file}")
    build(ablation.store.folder)
    statuses = ablation.statuses(ablation.cells).values()
    return Counter(str(status) for status in statuses if status.is_missing)
