"""Commands on the contents of a spec: `list`, `schema`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from bdhf.cli.app import app, out, say


@app.command("list")
def list_parts(
    compatibility: Annotated[
        bool,
        typer.Option("--compatibility", help="Show which parts of block_hf can be combined."),
    ] = False,
) -> None:
    """List every problem, curvature, partition, solver and optimizer that a spec may name."""
    from bdhf.experiments.parts.tables import catalogue

    if compatibility:
        _say_compatibility()
        return
    for kind, parts in catalogue().items():
        out.print(f"[bold]{kind}[/bold]")
        width = max(map(len, parts))
        for name, line in parts.items():
            say(f"  {name:<{width}}  {line}")


@app.command()
def schema(
    study: Annotated[
        bool, typer.Option("--study", help="Print the schema of a study, not of a spec.")
    ] = False,
) -> None:
    """Print the JSON Schema of a spec, for completion and checks in an editor."""
    from bdhf.experiments.spec.json_schema import schema_text, spec_schema

    if study:
        from bdhf.tuning.study.json_schema import study_schema as study_schema

        typer.echo(schema_text(study_schema()), nl=False)
        return
    typer.echo(schema_text(spec_schema()), nl=False)


def _say_compatibility() -> None:
    """Print curvature × partition, one column per solver: yes, or the number of the reason."""
    from bdhf.experiments.parts.compatibility import CONDITIONS, triples

    reasons: dict[str, int] = {}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for curvature, partition, solver, reason in triples():
        answer = str(reasons.setdefault(reason, len(reasons) + 1)) if reason else "yes"
        rows.setdefault((curvature, partition), {})[solver] = answer
    table = Table("curvature", "partition", *next(iter(rows.values())))
    for names, answers in rows.items():
        table.add_row(*names, *answers.values())
    out.print(table)
    for reason, number in reasons.items():
        say(f"{number}: {reason}")
    for solver, condition in CONDITIONS.items():
        say(f"{solver}: {condition}")
