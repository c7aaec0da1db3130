"""The published JSON Schema: complete, up to date, and strict with wrong specs."""

from __future__ import annotations

import inspect
import json
from copy import deepcopy
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from bdhf.experiments.parts import tables
from bdhf.experiments.spec.json_schema import schema_text, spec_schema
from bdhf.experiments.spec.schema import Spec
from bdhf.experiments.spec.yaml_source import parse
from tests.experiments.faults import FAULTS
from tests.experiments.specs import changed

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "docs" / "spec.schema.json"
SCHEMA = spec_schema()
VALIDATOR = Draft7Validator(SCHEMA)
SPECS = sorted((ROOT / "ablations").rglob("*.yaml"))

PARTS = [part for table, _ in tables.PARTS.values() for part in table.items()]
PARTS += [part for _, table in tables.NESTED.values() for part in table.items()]
PARTS += tables.PROBLEMS.items()


def refused(text):
    """The errors of a spec by the schema."""
    return [error.message for error in VALIDATOR.iter_errors(parse(text).data)]


def other_torch(schema):
    """Whether a schema is from another torch, whose optimizers have other arguments."""
    return schema["$comment"] != SCHEMA["$comment"]


def without_torch(schema):
    """A schema without the parts that depend on the version of torch."""
    rest = deepcopy(schema)
    own = {k: v for k, v in rest.pop("definitions").items() if not k.startswith("torch.")}
    choices = own.pop("arm")["anyOf"]
    del rest["$comment"]
    return rest, own, [choice for choice in choices if "torch." not in json.dumps(choice)]


def test_the_schema_is_one():
    """It is valid in draft 7, and all references in it resolve."""
    Draft7Validator.check_schema(SCHEMA)
    references = set(_references(SCHEMA))

    assert references
    assert {name.removeprefix("#/definitions/") for name in references} <= {*SCHEMA["definitions"]}


def _references(node):
    if isinstance(node, dict):
        yield from [node["$ref"]] if "$ref" in node else []
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        yield from _references(inner)


def test_the_committed_copy_is_up_to_date():
    """The file for editors equals the schema of the current models and tables."""
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    remedy = "rewrite it: bdhf schema > docs/spec.schema.json"

    assert without_torch(committed) == without_torch(SCHEMA), remedy
    is_other = other_torch(committed)
    assert is_other or COMMITTED.read_text(encoding="utf-8") == schema_text(SCHEMA), remedy


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.stem)
def test_the_specs_of_the_repository_are_valid_and_point_to_it(spec):
    """An editor marks nothing in them, and their first line names the schema."""
    text = spec.read_text(encoding="utf-8")
    key, _, path = text.splitlines()[0].partition("$schema=")

    assert refused(text) == []
    assert key == "# yaml-language-server: "
    assert (spec.parent / path).resolve() == COMMITTED


STRUCTURAL = (
    "unknown key", "missing key", "missing inner key", "wrong type", "text for a number", "schema",
    "name", "problem", "problem key", "optimizer", "torch key", "torch text", "torch truth", "part",
    "part key", "part type", "hf key", "hf lr", "stop", "bool for a number",
)  # fmt: skip


@pytest.mark.parametrize("fault", STRUCTURAL)
def test_faults_of_structure_are_refused(fault):
    """An editor marks unknown keys, types and names, and values of another type."""
    old, new, *_ = FAULTS[fault]

    assert refused(changed((old, new)))


@pytest.mark.parametrize("kind", ["curvature", "partition", "solver", "damping", "acceptance"])
def test_a_part_of_ones_own_is_valid_wherever_a_part_is(kind):
    """`package.module:name` alone, or with any keys; any other name is refused."""
    own, other = (f"{kind}: {{type: '{name}', any: [1]}}" for name in ("lab.parts:Own", "lab.Own"))

    def arm(text):
        return changed(("type: torch.Adam, lr: 3.0e-3", f"type: block_hf, {text}"))

    assert refused(arm(own)) == refused(arm(f"{kind}: lab.parts:Own")) == []
    assert refused(arm(other))
    assert refused(arm(f"{kind}: 'lab.parts:'"))


def test_optimizers_and_problems_of_ones_own_are_valid():
    """An arm and a problem may be `package.module:name` too."""
    adam = ("type: torch.Adam", "type: lab.parts:Adam")
    problem = ("type: autoencoder, encoder", "type: lab.parts:Problem, anything")

    assert refused(changed(adam, problem)) == []


LAYERS = {
    "one key": "include: base.yaml\narms: {block_hf: {lr: 0.3, solver: {tol: 0.1}}}",
    "several": "include: [a.yaml, b.yaml]\nseeds: {base: 9}\nbatch: {curvature: 3}",
    "taken out": "include: base.yaml\ngrid: null\narms: {adam: null}\nproblem: {hidden: [3]}",
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_spec_that_includes_another_needs_no_key(layer):
    """It may change any part, and remove keys and arms; a typo is still refused."""
    assert refused(LAYERS[layer]) == []
    assert refused(f"{LAYERS[layer]}\nsafty: {{seconds: 3}}")
    assert refused(f"{LAYERS[layer]}\nsafety: {{second: 3}}")


@pytest.mark.parametrize("name", [f.alias or n for n, f in Spec.model_fields.items()])
def test_every_key_of_a_spec_says_what_it_is(name):
    """Every key has a description, also in the sections."""
    key = SCHEMA["definitions"]["spec"]["properties"][name]
    section = SCHEMA["definitions"].get(key.get("$ref", "").rpartition("/")[2], {})

    assert key.get("description") or section["description"]
    assert SCHEMA["definitions"]["layer"]["properties"][name]["description"]
    assert all(inner.get("description") for inner in section.get("properties", {}).values())


@pytest.mark.parametrize(("name", "part"), PARTS, ids=[name for name, _ in PARTS])
def test_every_part_is_there_with_its_arguments_and_says_what_they_are(name, part):
    """A part of the tables has a mapping with all arguments, each with a description."""
    kinds = [*tables.PARTS, *(kind for kind, _ in tables.NESTED.values()), "problem"]
    choices = [choice for kind in kinds for choice in SCHEMA["definitions"][kind]["anyOf"]]
    properties = next(choice["properties"] for choice in choices if _type_of(choice) == name)

    assert list(properties) == ["type", *inspect.signature(part).parameters]
    for key in properties.values():
        assert key.get("description") or SCHEMA["definitions"][key["$ref"].split("/")[2]]


def test_a_new_part_appears_by_itself(monkeypatch):
    """A line in a table is a name, and a mapping with the arguments, in the schema."""
    monkeypatch.setitem(tables.PARTITIONS, "halves", tables.Random)

    choices = spec_schema()["definitions"]["partition"]["anyOf"]

    assert "halves" in [choice.get("const") for choice in choices]
    assert "halves" in [_type_of(choice) for choice in choices]


def _type_of(choice):
    return choice.get("properties", {}).get("type", {}).get("const")
