"""Limits of specs: a short file that expands to much is refused in a line, at no cost."""

import math
import os
import re
from pathlib import Path

import pytest

from bdhf.experiments.errors import SpecError
from bdhf.experiments.spec import size_limits
from bdhf.experiments.spec.compose import read_spec
from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.value_words import in_short
from bdhf.experiments.spec.yaml_source import parse
from bdhf.tuning.study.study import open_study
from tests.experiments.specs import SMALL, changed
from tests.messages import naming

PAGE = Path(__file__).parents[3] / "docs" / "specs.md"


def refused(call, *arguments):
    """The lines of the error of a call."""
    with pytest.raises(SpecError) as caught:
        call(*arguments)
    return caught.value.lines


#: A lowered limit -> a text at the limit, one beyond it, and line and column of the excess.
DOCUMENTS = {
    "lists": ("DEPTH", 3, "[[[1]]]", "[[[[1]]]]", "1:4"),
    "mappings": ("DEPTH", 2, "a: {b: 1}", "a: {b: {c: 1}}", "1:8"),
    "values": ("VALUES", 5, "a: [1, 2]", "a: [1, 2, 3]", "1:11"),
    "aliases": ("VALUES", 12, "a: &a [1, 2]\nb: [*a]", "a: &a [1, 2]\nb: &b [*a]\nc: *b",
                "3:4"),
    "merges": ("VALUES", 14, "a: &a {x: 1}\nb: {<<: *a}", "a: &a {x: 1}\nb: {<<: *a}\nc: {<<: *a}",
               "3:9"),
    "scalars": ("VALUES", 6, "a: &a 1\nb: *a", "a: &a 1\nb: *a\nc: *a", "3:4"),
    "digits": ("DIGITS", 3, "a: 123", "a: 1234", "1:4"),
    "signs": ("DIGITS", 3, "a: -123", "a: -1234", "1:4"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_document_is_read_up_to_a_limit_and_no_further(case, monkeypatch):
    """The limit itself is allowed; beyond it one line names file, line, column and limit."""
    limit, value, fine, beyond, position = DOCUMENTS[case]
    monkeypatch.setattr(size_limits, limit, value)

    assert parse(fine, "f").data is not None
    (line,) = refused(parse, beyond, "f")

    assert line.startswith(f"f:{position}: ")
    assert re.match(naming(value), line.removeprefix(f"f:{position}: "))


def test_an_alias_inside_of_its_anchor_is_refused():
    """A value that contains itself has no end."""
    (line,) = refused(parse, "a: &a [1, *a]", "f")

    assert line.startswith("f:1:11: ")
    assert re.match(naming("*a"), line)


def test_a_value_of_the_command_line_is_bounded_too(tmp_path, monkeypatch):
    """The same reader reads `--set`."""
    (tmp_path / "spec.yaml").write_text("a: 1")
    monkeypatch.setattr(size_limits, "DEPTH", 2)

    (line,) = refused(read_spec, tmp_path / "spec.yaml", ["a=[[[1]]]"])

    assert line.startswith("--set a=[[[1]]]:1:3: ")
    assert re.match(naming(2), line.removeprefix("--set a=[[[1]]]:1:3: "))


@pytest.mark.parametrize("of", ["itself", "included"])
def test_a_file_is_regular_and_of_a_stated_size(tmp_path, monkeypatch, of):
    """The spec itself and included files; bdhf does not wait for a pipe."""
    spec, base = tmp_path / "spec.yaml", tmp_path / "base.yaml"
    spec.write_text("include: base.yaml")
    base.write_text("a: 1")
    file = spec if of == "itself" else base
    size = file.stat().st_size
    monkeypatch.setattr(size_limits, "BYTES", max(spec.stat().st_size, size))
    read_spec(spec)

    file.write_text("a: 1" + " " * size_limits.BYTES)
    (long,) = refused(read_spec, spec)
    file.unlink()
    os.mkfifo(file)
    (pipe,) = refused(read_spec, spec)
    file.unlink()
    file.mkdir()
    (folder,) = refused(read_spec, spec)

    assert re.match(naming(file, f"{size_limits.BYTES:,}"), long)
    assert re.match(naming(file, "YAML"), pipe)
    assert re.match(naming(file, "YAML"), folder)


@pytest.mark.parametrize("name", ["loop.yaml", '"a\\0b.yaml"', "gone.yaml", "base.yaml/x.yaml"])
def test_an_included_name_that_leads_to_no_file_is_one_line(tmp_path, name):
    """A link to itself, an invalid name, a missing file, a path through a file."""
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "base.yaml").write_text("a: 1")
    (tmp_path / "spec.yaml").write_text(f"include: {name}")

    (line,) = refused(read_spec, tmp_path / "spec.yaml")

    assert line.startswith(f"{tmp_path / 'spec.yaml'}:1:10: include: {tmp_path}/")


def test_a_spec_is_made_of_a_limited_number_of_files(tmp_path, monkeypatch):
    """Next to each other or nested; the line is that of the `include` beyond the limit."""
    monkeypatch.setattr(size_limits, "MOST_FILES", 3)
    for name, text in {"a": "x: 1", "b": "include: a.yaml", "c": "include: b.yaml"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    read_spec(tmp_path / "c.yaml")
    (tmp_path / "deep.yaml").write_text("include: c.yaml")
    (tmp_path / "d.yaml").write_text("x: 1")
    (tmp_path / "wide.yaml").write_text("include: [a.yaml, b.yaml, d.yaml]")

    (deep,) = refused(read_spec, tmp_path / "deep.yaml")
    (wide,) = refused(read_spec, tmp_path / "wide.yaml")

    assert re.search(r"b\.yaml:1:10: include: .*\b3\b", deep)
    assert re.search(r"wide\.yaml:1:27: include\.2: .*\b3\b", wide)


GRID = "grid: {batch.gradient: [100, 200, 300], batch.curvature: [10, 20]}\nseeds"

#: A grid -> the factors of its cells.
CELLS = {
    "grid": (GRID, {"combinations": 6, "arms": 3, "seeds": 2}),
    "union": (
        "grid: [{batch.gradient: [100, 200]}, {arms.adam.lr: [0.1, 0.2, 0.3]}]\nseeds",
        {"combinations": 5, "arms": 3, "seeds": 2},
    ),
    "no grid": ("seeds", {"arms": 3, "seeds": 2}),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells_are_counted_before_they_are_made(case, monkeypatch):
    """The limit itself is planned; one cell more is reported with its factors, and none is made."""
    keys, factors = CELLS[case]
    text = changed(("seeds", keys))
    most = math.prod(factors.values()) - 1
    monkeypatch.setattr(size_limits, "CELLS", most + 1)
    assert variants(parse(text, "f"))

    monkeypatch.setattr(size_limits, "CELLS", most)
    monkeypatch.setattr("bdhf.experiments.spec.grid.product", None)
    (line,) = refused(variants, parse(text, "f"))

    assert line.startswith("f:")
    assert re.search(naming(*(f"{n} {name}" for name, n in factors.items()), most + 1, most), line)


def test_a_product_of_long_lists_is_counted_and_never_made():
    """300 × 299 × 299 combinations are only multiplied."""
    axes = {"batch.gradient": 300, "budget.updates": 299, "threads": 299}
    grid = ", ".join(
        f"{path}: [{', '.join(map(str, range(1, n + 1)))}]" for path, n in axes.items()
    )

    (line,) = refused(variants, parse(changed(("seeds", f"grid: {{{grid}}}\nseeds")), "f"))

    facts = ("26,820,300 combinations", "3 arms", "2 seeds", "160,921,800", "100,000")
    assert re.search(naming(*facts), line)


NUMBERS = {
    "seeds": ("seeds: {count: 2}", "seeds: {count: 10001}", "seeds.count", "10000"),
    "base": ("seeds: {count: 2}", "seeds: {count: 2, base: 9007199254740992}", "seeds.base",
             "9007199254730992"),
    "threads": ("stop: at_budget", "threads: 1025", "threads", "1024"),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_beyond_its_limit_is_reported_with_the_limit(case):
    """The line has the location, the limit and the value."""
    old, new, key, most = NUMBERS[case]

    (line,) = refused(variants, parse(changed((old, new)), "f"))

    value = re.findall(r"\d+", new)[-1]
    assert re.search(rf" {re.escape(key)}: .*\b{most}\b.*\b{value}$", line)


def test_lists_of_a_spec_have_a_stated_length():
    """For example `targets`."""
    targets = ", ".join(f"{{metric: val_loss, below: 0.{n:03}}}" for n in range(1, 102))

    (line,) = refused(variants, parse(changed(("{metric: val_loss, below: 0.08}", targets)), "f"))

    assert re.search(r" targets: .*\b100\b", line)
    assert len(line) < size_limits.LINE + 100


def test_a_study_is_bounded_by_the_same_reader(tmp_path, monkeypatch):
    """Nesting, seeds and trials of its file."""
    study = tmp_path / "study.yaml"
    text = (
        "schema: 1\nname: s\nablation: spec.yaml\nspaces: {adam: {lr: {log: [1.0e-4, 0.1]}}}\n"
        "trials: 2\nseeds: {count: 1, base: 50}\n"
    )
    (tmp_path / "spec.yaml").write_text(SMALL)
    study.write_text(text)
    open_study(study)

    study.write_text(text.replace("trials: 2", "trials: 100001"))
    (trials,) = refused(open_study, study)
    study.write_text(text.replace("count: 1", "count: 10001"))
    (seeds,) = refused(open_study, study)
    monkeypatch.setattr(size_limits, "DEPTH", 3)
    study.write_text(text)
    (depth,) = refused(open_study, study)

    assert re.search(r" trials: .*\b100000\b.*\b100001$", trials)
    assert re.search(r" seeds\.count: .*\b10000\b.*\b10001$", seeds)
    assert re.match(rf"{re.escape(str(study))}:4:\d+: .*\b3\b", depth)


def test_words_of_a_long_axis_are_those_of_a_short_one():
    """Values with the same words are numbered."""
    values = [{"type": "cg", "tol": 0.1}, "cg", "x" * 50, "x" * 51, "x" * 52]

    assert in_short(values)[:2] == ["cg(tol=0.1)", "cg"]
    assert [words[-2:] for words in in_short(values)[3:]] == ["#2", "#3"]


@pytest.mark.parametrize("number", ["BYTES", "VALUES", "CELLS"])
def test_the_page_states_the_limits(number):
    """docs/specs.md has the numbers of the code."""
    assert f"{getattr(size_limits, number):,}" in PAGE.read_text(encoding="utf-8")
