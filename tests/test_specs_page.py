"""docs/specs.md: every key has the row of the schema, and every example is accepted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bdhf.experiments.spec.compose import merged
from bdhf.experiments.spec.json_schema import spec_schema
from bdhf.experiments.spec.load import check_spec
from bdhf.experiments.spec.schema import Spec
from bdhf.experiments.spec.yaml_source import parse
from tests.experiments.specs import SMALL

PAGE = (Path(__file__).parent.parent / "docs" / "specs.md").read_text(encoding="utf-8")
DEFINITIONS = spec_schema()["definitions"]
SPEC = DEFINITIONS["spec"]
MODEL = Spec.model_json_schema()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


#: Sections of a spec, by key; the value of the key is a section or a list of them.
SECTIONS = {
    name: MODEL["$defs"][section]
    for name, key in MODEL["properties"].items()
    if (section := key.get("items", key).get("$ref", "").rpartition("/")[2])
}


def row(name, key, needed):
    """A line of a table: the key, its default, and what it means."""
    target = DEFINITIONS.get(key.get("$ref", "").rpartition("/")[2], {})
    default = key.get("default")
    shown = "none" if default in (None, []) else f"`{json.dumps(default)}`".replace('"', "")
    if isinstance(default, dict):
        shown = "see below"
    meaning = key.get("description") or target["description"].partition("\n")[0]
    return f"| `{name}` | {'needed' if name in needed else shown} | {meaning} |"


@pytest.mark.parametrize("name", SPEC["properties"])
def test_every_key_of_a_spec_is_in_the_page(name):
    """Its row in the table, with default and meaning, is that of the model."""
    assert row(name, SPEC["properties"][name], MODEL["required"]) in PAGE


@pytest.mark.parametrize(("name", "section"), SECTIONS.items(), ids=SECTIONS)
def test_every_key_of_a_section_is_in_the_page(name, section):
    """Under the heading of the section, with default and meaning of the model."""
    _, heading, text = PAGE.partition(f"\n## `{name}`")
    text = text.partition("\n## ")[0]
    rows = [row(*key, section.get("required", ())) for key in section["properties"].items()]

    assert heading
    assert [line for line in rows if line not in text] == []


def test_every_key_of_block_hf_is_in_the_page():
    """Parts by their kinds, and the settings."""
    keys = DEFINITIONS["block_hf"]["properties"]
    rows = [row(name, key, ()) for name, key in keys.items() if name != "type"]

    assert [line for line in rows if line not in PAGE] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_is_accepted(example):
    """Alone if it is a whole spec, else on top of the small spec of the tests."""
    data = parse(example).data
    whole = data if "schema" in data else merged(parse(SMALL).data, data, ())

    assert check_spec(parse(json.dumps(whole))).name
