"""The published JSON Schema: whole, up to date, and strict where a spec is wrong."""

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
    """What the schema has against a spec."""
    return [error.message for error in VALIDATOR.iter_errors(parse(text).data)]


def other_torch(schema):
    """Whether a schema is of another torch, whose optimizers have other arguments."""
    return schema["$comment"] != SCHEMA["$comment"]


def without_torch(schema):
    """A schema without what the version of torch decides."""
    rest = deepcopy(schema)
    own = {k: v for k, v in rest.pop("definitions").items() if not k.startswith("torch.")}
    choices = own.pop("arm")["anyOf"]
    del rest["$comment"]
    return rest, own, [choice for choice in choices if "torch." not in json.dumps(choice)]


def test_the_schema_is_one():
    """It is valid in draft 7, and every reference in it leads somewhere."""
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
    """Editors read what the models and tables say now."""
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    told = "rewrite it: bdhf schema > docs/spec.schema.json"

    if other_torch(committed):
        assert without_torch(committed) == without_torch(SCHEMA), told
    else:
        assert COMMITTED.read_text(encoding="utf-8") == schema_text(SCHEMA), told


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.stem)
def test_the_specs_of_the_repository_are_valid_and_point_to_it(spec):
    """No spec has a line under it in an editor, and its first line says where the schema is."""
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
    """Unknown keys, types and names, and values of another type, are marked in the editor."""
    old, new, *_ = FAULTS[fault]

    assert refused(changed((old, new)))


@pytest.mark.parametrize("kind", ["curvature", "partition", "solver", "damping", "acceptance"])
def test_a_part_of_ones_own_is_valid_wherever_a_part_is(kind):
    """`package.module:name` alone, or with any keys; what is no such name is refused."""
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
    """It may change any part of it, and take keys and arms out; a typo is refused all the same."""
    assert refused(LAYERS[layer]) == []
    assert refused(f"{LAYERS[layer]}\nsafty: {{seconds: 3}}")
    assert refused(f"{LAYERS[layer]}\nsafety: {{second: 3}}")


@pytest.mark.parametrize("name", [f.alias or n for n, f in Spec.model_fields.items()])
def test_every_key_of_a_spec_says_what_it_is(name):
    """There is something to read at every key, and at every key of a section."""
    key = SCHEMA["definitions"]["spec"]["properties"][name]
    section = SCHEMA["definitions"].get(key.get("$ref", "").rpartition("/")[2], {})

    assert key.get("description") or section["description"]
    assert SCHEMA["definitions"]["layer"]["properties"][name]["description"]
    assert all(inner.get("description") for inner in section.get("properties", {}).values())


@pytest.mark.parametrize(("name", "part"), PARTS, ids=[name for name, _ in PARTS])
def test_every_part_is_there_with_its_arguments_and_says_what_they_are(name, part):
    """A part of the tables has a mapping with all its arguments, and something to read at each."""
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
