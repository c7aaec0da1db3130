"""The command `compare`: every comparison as a table in words, as JSON or as LaTeX."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bdhf.cli.app import AsJson, Results, app, errors_reported, out, say, say_json, warn
from bdhf.cli.planned import say_twins
from bdhf.cli.results import fresh
from bdhf.text.printable import printable


@app.command()
def compare(
    results: Results,
    as_json: AsJson = False,
    as_latex: Annotated[
        bool, typer.Option("--latex", help="Print a table for a paper (package booktabs).")
    ] = False,
) -> None:
    """Compare the arms of a results folder, and write comparisons.parquet; no report."""
    from bdhf.records import write_table
    from bdhf.records.disk.files import if_writable
    from bdhf.stats.caveats.twins import not_compared
    from bdhf.stats.compare import compare, to_table
    from bdhf.stats.text.latex import to_latex
    from bdhf.stats.text.sentences import sentence
    from bdhf.stats.text.tables import rows
    from bdhf.text.printable import stripped_line

    if as_json and as_latex:
        raise typer.BadParameter("give --json or --latex, not both")
    with errors_reported():
        records = fresh(results)
        results_of_tests = compare(records)
        path = results / "comparisons.parquet"
        with if_writable() as unwritten:
            write_table(path, to_table(results_of_tests))
    for why in unwritten:
        warn(f"{path}: not written: {why}; the folder keeps its old tables")
    if as_json:
        say_json(
            {
                "name": records.name,
                "comparisons": [
                    result.to_row() | {"flags": list(result.flags), "sentence": sentence(result)}
                    for result in results_of_tests
                ],
                "not_compared": [
                    {"name": e.name, "candidate": e.candidate, "baseline": e.baseline}
                    for e in records.twins
                ],
            }
        )
        return
    if as_latex:
        typer.echo(printable(to_latex(results_of_tests, not_compared(records.twins))), nl=False)
        return
    for result in results_of_tests:
        table = Table(
            title=escape(stripped_line(result.name)), title_justify="left", show_header=False,
            min_width=60,
        )  # fmt: skip
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows(result):
            table.add_row(escape(name), escape(value))
        out.print(table)
        say(stripped_line(sentence(result)))
        for flag in result.flags:
            say(f"  ! {stripped_line(flag)}")
        say("")
    say_twins(records.twins)
    if not results_of_tests and not records.twins:
        say(f"{results}: the spec has no comparison; its `compare` names the arms to compare")
