"""Parts from tables, and nested parts: names, defaults, and the paths of faults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from bdhf.experiments.errors import Faults, SpecError
from bdhf.experiments.parts import tables
from bdhf.experiments.parts.resolve import make, resolve
from bdhf.experiments.spec.load import check_spec
from bdhf.experiments.spec.yaml_source import parse
from tests.experiments.specs import changed
from tests.messages import naming


class Shape(Protocol):
    """The nested part of the stand-ins."""

    def area(self) -> float: ...


@dataclass(frozen=True)
class Square:
    """A part that refuses some sides."""

    side: float = 1.0

    def __post_init__(self):
        if self.side <= 0:
            raise ValueError(f"side must be above 0; got {self.side}")

    def area(self) -> float:
        return self.side**2


@dataclass(frozen=True)
class Times:
    """A part that needs another."""

    shape: Shape
    factor: float = 2.0

    def area(self) -> float:
        return self.factor * self.shape.area()


@dataclass(frozen=True)
class Canvas:
    """A part with defaults of every kind; one depends on another argument."""

    shape: Shape = Times(Square(3.0))
    frame: Shape | None = None
    colours: list[str] = field(default_factory=lambda: ["red"])
    size: int | None = None

    def __post_init__(self):
        if self.size is None and self.frame is None:
            object.__setattr__(self, "size", 7)


SHAPES = {"square": Square, "times": Times}
CANVASES = {"canvas": Canvas}
NESTED = {Shape: ("shape", SHAPES)}


def resolved(data, spell=lambda kind, data: data):
    """The stand-in, resolved below the key `it`."""
    return resolve("canvas", CANVASES, data, ("it",), NESTED, spell)


SQUARE = {"type": "square", "side": 1.0}
DEFAULT = {
    "type": "canvas",
    "shape": {"type": "times", "shape": {"type": "square", "side": 3.0}, "factor": 2.0},
    "frame": None,
    "colours": ["red"],
    "size": 7,
}


def test_defaults_are_written_out_to_the_last_part():
    """A default part becomes its mapping; null stays null; a factory is called."""
    assert resolved("canvas") == DEFAULT


@pytest.mark.parametrize("frame", ["square", {"type": "square"}, {"type": "square", "side": 1.0}])
def test_a_nested_part_is_given_like_any_other(frame):
    """By name, as a mapping, or with defaults written out: the same resolution."""
    canvas = resolved({"type": "canvas", "frame": frame})

    assert canvas == DEFAULT | {"frame": SQUARE, "size": None}  # the default with a frame


def test_null_is_no_part_where_none_is_allowed():
    """An optional part may be null; another one may not."""
    assert resolved({"type": "canvas", "frame": None}) == DEFAULT

    with pytest.raises(Faults) as caught:
        resolved({"type": "canvas", "shape": None})
    assert caught.value.faults[0].path == ("it", "shape")


def test_what_is_resolved_is_what_is_made():
    """Nested parts are built, to any depth, and resolve to themselves."""
    data = {
        "type": "canvas",
        "shape": {"type": "times", "shape": {"type": "times", "shape": "square"}},
    }

    mapping = resolved(data)
    canvas = make(CANVASES, mapping, NESTED)

    assert canvas == Canvas(shape=Times(Times(Square())))
    assert canvas.shape.area() == 4.0
    assert resolved(mapping) == mapping
    assert make(CANVASES, resolved("canvas"), NESTED) == Canvas()


@pytest.mark.parametrize(
    ("shape", "path", "names"),
    [
        ("squar", ("it", "shape"), ("'squar'", "times", "'square'")),
        ({"type": "squar", "side": 1}, ("it", "shape", "type"), ("'squar'", "times", "'square'")),
        ({"type": "square", "sid": 1}, ("it", "shape", "sid"), ("square", "'sid'", "'side'")),
        ({"type": "square", "side": "a"}, ("it", "shape", "side"), ("'a'",)),
        ({"type": "square", "side": -1}, ("it", "shape", "side"), ("side", -1)),
        ({"type": "times"}, ("it", "shape"), ("times", "'shape'")),
        ({"type": "times", "shape": {"type": "square", "side": 0}},
         ("it", "shape", "shape", "side"), ("side", 0)),
        (3, ("it", "shape"), ("shape", "`type`", "square", "times")),
    ],
)  # fmt: skip
def test_a_fault_inside_a_nested_part_is_reported_there(shape, path, names):
    """Paths of faults lead into the nested mapping."""
    with pytest.raises(Faults) as caught:
        resolved({"type": "canvas", "shape": shape})

    (fault,) = caught.value.faults
    assert fault.path == path
    assert re.match(naming(*names), fault.message)


def test_faults_of_several_nested_parts_are_reported_together():
    """The faults of all arguments are reported at once."""
    with pytest.raises(Faults) as caught:
        resolved({"type": "canvas", "shape": "a", "frame": "b", "size": "c"})

    assert {fault.path[1] for fault in caught.value.faults} == {"shape", "frame", "size"}


def test_shorthand_holds_inside_parts_too():
    """Shorthands are expanded at every depth."""

    def spell(kind, value):
        return {"type": "square", "side": value} if kind == "shape" and value == 5 else value

    canvas = resolved({"type": "canvas", "shape": {"type": "times", "shape": 5}}, spell)

    assert canvas["shape"]["shape"] == {"type": "square", "side": 5}


def test_a_default_that_no_table_has_is_a_fault_of_the_program():
    """A part whose default cannot be named in YAML raises at once."""
    with pytest.raises(LookupError, match=naming("'shape'")):
        resolve("canvas", CANVASES, "canvas", (), {Shape: ("shape", {"square": Square})})


@dataclass(frozen=True)
class Around:
    """A partition inside a partition."""

    like: tables.Partition

    def __call__(self, layout):
        return self.like(layout)


@pytest.fixture
def around(monkeypatch):
    """A partition of the table that holds another one."""
    monkeypatch.setitem(tables.PARTITIONS, "around", Around)


def test_groups_alone_are_the_blocks_of_the_problem_inside_partitions_too(around):
    """`{type: around, like: groups}` takes the problem's own blocks."""
    spec = check_spec(
        parse(changed(("partition: full", "partition: {type: around, like: groups}")))
    )

    assert spec.arms["full_hf"]["partition"] == {
        "type": "around",
        "like": {"type": "groups", "blocks": [["encoder.*"], ["decoder.*"]]},
    }


def test_a_nested_partition_that_does_not_fit_the_model_is_reported_where_it_is(around):
    """The line and column are those of the inner partition."""
    wrong = "partition: {type: around, like: {type: groups, blocks: [['encoder.*']]}}"

    with pytest.raises(SpecError) as caught:
        check_spec(parse(changed(("partition: full", wrong)), "f"))

    (line,) = caught.value.lines
    assert line.startswith("f:7:65: arms.full_hf.partition.like: ")
    assert re.search(naming("'decoder.0.weight'"), line)
