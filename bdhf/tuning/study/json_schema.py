"""The JSON Schema of a study. Editors use it to complete, check and explain the keys."""

from __future__ import annotations

from bdhf.experiments.parts.schemas import JsonSchema
from bdhf.experiments.spec.json_schema import tidy
from bdhf.tuning.study.schema import Pruner, Sampler, StudySpec

_RANGE: JsonSchema = {
    "type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2,
}  # fmt: skip

#: One dimension of a search space.
_DIMENSION: JsonSchema = {
    "description": "A range (`log` or `linear`), or a `choice`.",
    "type": "object",
    "properties": {
        "log": _RANGE | {"description": "Log-uniform from the first number to the second."},
        "linear": _RANGE | {"description": "Uniform from the first number to the second."},
        "whole": {"description": "Whole numbers only.", "type": "boolean"},
        "choice": {
            "description": "One of several values, or one of several types with their own spaces.",
            "anyOf": [
                {"type": "array", "minItems": 2},
                {
                    "type": "object",
                    "minProperties": 2,
                    "additionalProperties": {"type": ["object", "null"]},
                },
            ],
        },
    },
    "additionalProperties": False,
    "oneOf": [{"required": [kind]} for kind in ("log", "linear", "choice")],
}


def study_schema() -> JsonSchema:
    """The schema, as plain data.

    >>> study_schema()["properties"]["trials"]["exclusiveMinimum"]
    0
    """
    study = tidy(StudySpec.model_json_schema(ref_template="#/definitions/{model}"))
    sections, keys = study.pop("$defs", {}), study["properties"]
    for key, part in (("sampler", Sampler), ("pruner", Pruner)):
        names = sections[part.__name__]["properties"]["type"]["enum"]
        keys[key] = {
            "description": (part.__doc__ or "").strip(),
            "anyOf": [{"enum": names}, {"$ref": f"#/definitions/{part.__name__}"}],
        }
    keys["spaces"] |= {
        "propertyNames": {"pattern": keys["name"]["pattern"]},
        "additionalProperties": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"$ref": "#/definitions/dimension"},
        },
    }
    keys["spaces"].pop("patternProperties", None)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A study of bdhf",
        **study,
        "definitions": {**sections, "dimension": _DIMENSION},
    }
