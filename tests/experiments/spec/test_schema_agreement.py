"""The JSON Schema is never stricter than bdhf: an editor marks nothing that would run."""

from __future__ import annotations

import inspect
import json
from copy import deepcopy

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from bdhf.experiments.errors import SpecError
from bdhf.experiments.parts import tables
from bdhf.experiments.parts.torch_optimizers import torch_optimizers
from bdhf.experiments.spec.json_schema import spec_schema
from bdhf.experiments.spec.load import check_spec
from bdhf.experiments.spec.yaml_source import parse
from tests.experiments.specs import SMALL, changed

SCHEMA = spec_schema()


def accepts(text):
    """Whether bdhf accepts a spec."""
    try:
        check_spec(parse(text))
    except SpecError:
        return False
    return True


def refused(text):
    """The errors of a spec by the schema."""
    return [error.message for error in Draft7Validator(SCHEMA).iter_errors(parse(text).data)]


PROBLEM = "problem: {type: autoencoder, encoder: [784, 12, 4]}"
BLEND = "partition: {type: blend, partition: "


def grid(text):
    """A change of the small spec: a grid."""
    return ("seeds: {count: 2}", f"seeds: {{count: 2}}\ngrid: {text}")


WAYS = {
    "a number": [("damping: 1.0e-2", "damping: 1, regularization: 0.1")],
    "blocks of the problem": [("partition: full", "partition: {type: groups}")],
    "the same inside": [("partition: full", BLEND + "groups, alpha: 0}")],
    "a stop rule": [("max_iters: 5", "max_iters: 5, stop: {type: forcing, most: 0.5}")],
    "no stop rule": [("max_iters: 5", "max_iters: 5, stop: null")],
    "stop rules from the grid": [
        grid("{arms.full_hf.solver.stop: [null, forcing, {type: relative_residual, tol: 0.2}]}")
    ],
    "null for a part": [("partition: full", "partition: {type: random, like: null}")],
    "momentum": [("lr: 0.5", "momentum: quadratic")],
    "no momentum": [("lr: 0.5", "momentum: null")],
    "momentum from the grid": [grid("{arms.full_hf.momentum: [null, quadratic]}")],
    "an arm by name": [("{type: torch.Adam, lr: 3.0e-3}", "torch.Adam")],
    "a problem by name": [("{type: autoencoder, encoder: [784, 12, 4]}", "autoencoder")],
    "a list": [("lr: 3.0e-3", "betas: [0.8, 0.9], foreach: null")],
    "a share": [("curvature: 50", "curvature: 0.25")],
    "a name with a dot": [("  adam:", "  adam-2.b:")],
    "settings": [("lr: 0.5", "method: auto, product_dtype: bfloat16, max_bytes: 5")],
    "a key from the grid": [("budget: {updates: 6}\n", ""), grid("{budget.updates: [4, 6]}")],
    "a problem from the grid": [(PROBLEM, ""), grid("{problem: [autoencoder]}")],
    "an argument from the grid": [
        ("partition: full", BLEND + "full}"), grid("{arms.full_hf.partition.alpha: [0, 1]}"),
    ],
    "a union of grids": [grid("[{threads: [1]}, {threads: [2], batch.curvature: [20]}]")],
    "an exclusion": [grid("{threads: [1, 2]}\nexclude: [{arm: [full_hf], threads: 2}]")],
    "settings of a combination": [
        grid("{threads: [1, 2]}\nsettings: [{at: {threads: [2]}, set: {arms.adam: torch.SGD}}]")
    ],
    "a key from settings": [
        ("budget: {updates: 6}\n", ""),
        grid("{threads: [1]}\nsettings: [{at: {threads: 1}, set: {budget: {updates: 6}}}]"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_say_it_is_valid(way):
    """Shorthands, nested parts and values from a grid run, and are valid."""
    text = changed(*WAYS[way])

    assert accepts(text)
    assert refused(text) == []


KINDS = [table for table, _ in tables.PARTS.values()] + [
    table for _, table in tables.NESTED.values()
]
TABLES = {name: part for table in (*KINDS, tables.PROBLEMS) for name, part in table.items()}
TABLES |= {"block_hf": tables.BlockHessianFree, **torch_optimizers()}

VALUES = [
    None, True, False, 0, 1, 2, 3.5, 0.5, -1, 50, 1e-3, "auto", "text", "linear", "val_loss",
    "bfloat16", [], {}, [1], [0.8, 0.9], [["*"]], [784, 4],
]  # fmt: skip
PARTS = [*TABLES, *({"type": name} for name in TABLES)]


def mappings(node, keys=()):
    """Every mapping in the data of a spec, with its path."""
    if isinstance(node, dict):
        yield keys, node
    inside = node.items() if isinstance(node, dict) else enumerate(node)
    for key, inner in inside:
        if isinstance(inner, (dict, list)):
            yield from mappings(inner, (*keys, key))


def keys_at(keys, mapping):
    """The keys that a mapping may have: arguments of a part, or keys of the spec or a section."""
    part = mapping.get("type")
    if isinstance(part, str) and part in TABLES:
        return {"type", *inspect.signature(TABLES[part]).parameters}
    spec = SCHEMA["definitions"]["spec"]["properties"]
    if not keys:
        return {*spec}
    section = spec[keys[0]].get("items", spec[keys[0]]).get("$ref", "").rpartition("/")[2]
    return {*SCHEMA["definitions"].get(section, {}).get("properties", ())}


@st.composite
def changed_specs(draw):
    """The small spec with a few keys set to anything, or removed."""
    spec = json.loads(json.dumps(parse(SMALL).data))  # nothing in it is shared
    for _ in range(draw(st.integers(1, 2))):
        keys, where = draw(st.sampled_from(list(mappings(spec))))
        key = draw(st.sampled_from(sorted({*where, *keys_at(keys, where)}) or ["key"]))
        if draw(st.integers(0, 4)) == 0:
            where.pop(key, None)
        else:
            where[key] = deepcopy(draw(st.sampled_from(VALUES) | st.sampled_from(PARTS)))
    return spec


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(changed_specs())
def test_what_the_tool_accepts_the_schema_accepts(spec):
    """For any change; with too few accepted specs, hypothesis itself fails the test."""
    text = json.dumps(spec)
    assume(accepts(text))

    assert refused(text) == []
