"""YAML: values and their positions."""

import re

import pytest

from bdhf.experiments.errors import Fault, SpecError
from bdhf.experiments.spec.compose import read_spec
from bdhf.experiments.spec.yaml_source import parse
from tests.messages import naming


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("no", "no"),
        ("on", "on"),
        ("010", 10),
        ("0o10", 8),
        ("true", True),
        ("null", None),
        (".5", 0.5),
        ("1_000", 1000),
        ("2.0", 2),
        ("1e3", 1000),
        ('"2024-01-01"', "2024-01-01"),
        ("12:30", "12:30"),
    ],
)
def test_values_are_those_of_yaml_1_2(text, value):
    """Numbers are numbers, words are words, and nothing is octal or a date by accident."""
    read = parse(f"key: {text}").data["key"]

    assert read == value
    assert type(read) is type(value)


def test_merges_are_resolved_and_own_keys_win():
    """`<<` adds the keys of an anchor; own keys override them."""
    data = parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}").data

    assert data["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("path", "at_key", "position"),
    [
        (("b", "y"), False, "3:16"),
        (("b", "y"), True, "3:13"),
        (("b", "x"), True, "2:8"),  # merged: the original position
        (("c", 1, "k"), True, "6:5"),
        (("c", 1), False, "6:5"),
        (("c", 1, "gone"), False, "6:5"),  # the deepest part in the file
        (("gone",), False, "1:1"),
        ((), False, "1:1"),
    ],
)
def test_a_fault_is_reported_with_line_and_column(path, at_key, position):
    """Positions are those of the value, or of the key where the key is wrong."""
    source = parse("\na: &a {x: 1}\nb: {<<: *a, y: 3}\nc:\n  - j: 1\n  - k: 2\n", "f.yaml")

    (line,) = source.error([Fault(path, "message", at_key)]).lines

    assert line.startswith(f"f.yaml:{position}: ")
    assert line.endswith("message")


def test_a_fault_is_one_line_whatever_the_names_are():
    """Line breaks and invisible characters are escaped."""
    (line,) = parse("a: 1", "f").error([Fault(("\x1e\u2028",), "é\nb")]).lines

    assert line == r"f:1:1: \x1e\u2028: é\nb"


def test_faults_are_reported_in_the_order_of_the_file():
    """Several faults are sorted by position."""
    source = parse("a: 1\nb: 2\n", "f")

    lines = source.error([Fault(("b",), "second"), Fault(("a",), "first")]).lines

    assert lines == ("f:1:4: a: first", "f:2:4: b: second")


@pytest.mark.parametrize(
    ("text", "start", "name"),
    [
        ("a: 1\na: 2\n", "f:2:1: ", '"a"'),
        ("a: [1,\n", "f:2:1: ", "YAML"),
        ("a: *gone\n", "f:1:4: ", "'gone'"),
        ("\ta: 1", "f:1:1: ", "YAML"),
        ("a: .nan\nb: [-.inf]", "f:1:4: a: ", "nan"),
        ("a: 1\n---\nb: 2\n", "f:2:1: ", "YAML"),
        ("a: &a {x: {z: 1}}\nb: {<<:, *a, y: 2}\n", "f: ", "YAML"),  # the parser itself fails
        ("a: 2024-01-01", "f:1:4: a: ", "2024-01-01"),
        ("a: !foo b", "f:1:4: a: ", "(!...)"),
        ("a: !foo {b: 1}", "f:1:4: a: ", "(!...)"),
        ('a: "\\ud800"', "f:1:4: a: ", "surrogate pair"),
        ("1: a", "f:1:1: 1: ", '("1")'),
    ],
)
def test_malformed_yaml_is_one_line_with_its_place(text, start, name):
    """Every error of the parser becomes one line that starts with file, line and column."""
    with pytest.raises(SpecError) as caught:
        raise parse(text, "f").error(())

    first = caught.value.lines[0]
    assert first.startswith(start)
    assert re.match(naming(name), first.removeprefix(start))
    assert all("\n" not in line for line in caught.value.lines)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, content):
    """A missing file and a binary file give a line, not a traceback."""
    file = tmp_path / "spec.yaml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SpecError) as caught:
        read_spec(file)

    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith(f"{file}: ")
