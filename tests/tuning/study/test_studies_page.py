"""docs/studies.md and its schema agree with the program; shipped studies are complete."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from bdhf.experiments.spec.json_schema import schema_text
from bdhf.experiments.spec.yaml_source import parse
from bdhf.tuning.study.json_schema import study_schema
from bdhf.tuning.study.schema import Pruner, Sampler, StudySpec
from bdhf.tuning.study.study import open_study
from tests.experiments.specs import SMALL, STUDY

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
SCHEMA = study_schema()
VALIDATOR = Draft7Validator(SCHEMA)
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


def row(name: str, key: dict[str, Any], needed: list[str], default: object) -> str:
    """A line of a table: the key, its default, and its meaning."""
    said = "none" if default in (None, {}, []) else f"`{json.dumps(default)}`".replace('"', "")
    return f"| `{name}` | {'needed' if name in needed else said} | {key['description']} |"


@pytest.mark.parametrize("name", SCHEMA["properties"])
def test_every_key_of_a_study_is_in_the_page(name: str) -> None:
    """Its line in the table has the default and the description of the model."""
    key, needed = dict(SCHEMA["properties"][name]), SCHEMA["required"]
    fields = {field.alias or n: field for n, field in StudySpec.model_fields.items()}
    default = fields[name].default if name not in needed else None
    default = getattr(default, "type", default)
    lead = {"seeds": StudySpec.model_fields["seeds"].description}
    key["description"] = lead.get(name, key.get("description"))

    assert row(name, key, needed, {} if name == "set" else default) in PAGE


@pytest.mark.parametrize("part", [Sampler, Pruner])
def test_every_key_of_a_part_is_in_the_page(part: type[Sampler | Pruner]) -> None:
    """Below its own heading, with the default and the description of the model."""
    text = PAGE.partition(f"\n## `{part.__name__.lower()}`")[2].partition("\n## ")[0]
    keys = part.model_json_schema()["properties"]

    for name, key in keys.items():
        assert row(name, key, [], part.model_fields[name].default) in text


def test_the_committed_schema_is_up_to_date() -> None:
    """`bdhf schema --study > docs/study.schema.json` changes nothing."""
    assert (ROOT / "docs" / "study.schema.json").read_text(encoding="utf-8") == schema_text(SCHEMA)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_shipped_studies_are_whole(file: Path) -> None:
    """Program and schema accept each one, and it has a space for every arm."""
    study = open_study(file)

    assert not list(VALIDATOR.iter_errors(parse(file.read_text(encoding="utf-8")).data))
    assert {cell.planned.name for cell in study.cells} == set(study.variants[0].spec.arms)
    assert study.name == file.stem


def test_the_example_of_the_page_is_accepted(tmp_path: Path) -> None:
    """The study of the page is valid for an ablation with its arms."""
    (tmp_path / "small.yaml").write_text(SMALL)
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "study.yaml").write_text(example)

    assert len(open_study(tmp_path / "study.yaml").cells) == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trials: 8", "trials: 0"),
        ("trials: 8", "trails: 8"),
        ("{log: [1.0e-4, 1.0]}", "{log: [1.0e-4]}"),
        ("{log: [1.0e-4, 1.0]}", "{lgo: [1.0e-4, 1.0]}"),
        ("{log: [1.0e-4, 1.0]}", "{log: [1, 2], linear: [1, 2]}"),
        ("type: tpe", "type: tep"),
    ],
)
def test_the_schema_refuses_what_is_wrong(old: str, new: str) -> None:
    """The schema finds the faults of form that the program refuses, and accepts the study."""
    assert not list(VALIDATOR.iter_errors(parse(STUDY).data))
    assert list(VALIDATOR.iter_errors(parse(STUDY.replace(old, new)).data))
