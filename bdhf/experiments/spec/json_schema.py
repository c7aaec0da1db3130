"""The JSON Schema of a spec, with which editors complete, check and explain its keys.

It is generated from the models and tables that check a spec, so it is always complete. The YAML
extensions of editors read Draft 7. The schema accepts every spec that bdhf accepts, except for a
value that every combination of a grid, or its settings, replaces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from bdhf.experiments.parts.schemas import JsonSchema, part_schemas, ref
from bdhf.experiments.spec.grid import VARIED
from bdhf.experiments.spec.schema import Spec


def spec_schema() -> JsonSchema:
    """The schema, as plain data.

    >>> spec_schema()["definitions"]["spec"]["properties"]["alpha"]["default"]
    0.05
    """
    spec = tidy(Spec.model_json_schema(ref_template="#/definitions/{model}"))
    sections, keys = spec.pop("$defs"), spec["properties"]
    keys["problem"] = ref("problem") | {"description": keys["problem"]["description"]}
    keys["arms"] |= {
        "propertyNames": {"pattern": next(iter(keys["arms"].pop("patternProperties")))}
        | keys["arms"].get("propertyNames", {}),
        "additionalProperties": ref("arm"),
    }
    layer = _layer(keys, sections)
    for key in VARIED:  # a grid may supply a missing value
        _section(keys[key], sections).pop("required", None)
    needed = spec.pop("required")
    always = [key for key in needed if key not in VARIED]
    spec["anyOf"] = [{"required": needed}, {"required": [*always, "grid"]}]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": f"torch {torch.__version__.partition('+')[0]}",
        "title": "A spec of bdhf",
        "description": spec["description"].partition("\n")[0],
        "type": "object",
        "if": {"required": ["include"]},
        "then": ref("layer"),
        "else": ref("spec"),
        "definitions": {"spec": spec, "layer": layer, **sections, **part_schemas()},
    }


def schema_text(schema: JsonSchema) -> str:
    """A schema as the text of a file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _layer(keys: Mapping[str, JsonSchema], sections: Mapping[str, JsonSchema]) -> JsonSchema:
    """The keys of a spec that includes others, each whole or in part; null removes a key."""
    partly = {"type": ["object", "null"]}  # some keys of the value in the included spec
    loose = {key: _section(schema, sections) or schema for key, schema in keys.items()}
    loose["problem"] = {"anyOf": [keys["problem"], partly]}
    loose["arms"] = keys["arms"] | {"additionalProperties": {"anyOf": [ref("arm"), partly]}}
    optional = {
        key: {
            "description": keys[key].get("description", schema.get("description", "")),
            "anyOf": [_without(schema, "required", "minProperties"), {"type": "null"}],
        }
        for key, schema in loose.items()
    }
    return {"type": "object", "properties": optional, "additionalProperties": False}


def _section(schema: JsonSchema, sections: Mapping[str, JsonSchema]) -> JsonSchema:
    """The section that a key refers to; {} for any other key."""
    return sections.get(schema.get("$ref", "").rpartition("/")[2], {})


def _without(schema: JsonSchema, *keywords: str) -> JsonSchema:
    return {key: value for key, value in schema.items() if key not in keywords}


def tidy(node: Any) -> Any:
    """Remove titles that repeat a key, and translate pydantic's `gt`, which is not JSON Schema."""
    if isinstance(node, list):
        return [tidy(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    words = {"gt": "exclusiveMinimum"}  # of a union of types
    titled = isinstance(node.get("title"), str)
    return {words.get(k, k): tidy(v) for k, v in node.items() if not (titled and k == "title")}
