"""Records for a double-blind review, without what identifies authors and machines.

Environments keep versions and settings. Hosts, processors and commits become `machine A`,
`processor B` and so on, so readers still see which runs share one, and verdicts do not change.
Comments of the spec are removed, and paths, addresses and names in the reasons of runs. Names that
a spec chooses (arms, comparisons, own parts) stay, because they define the question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from bdhf.records import InputError, Records, StudyRecords, Tuned
from bdhf.records.provenance.environment import hashes_in_words, hashes_of_words
from bdhf.report.embedded.archive import RunFiles
from bdhf.report.embedded.redaction import first_path, redacted, users_in, without_paths

#: Fields of env.json that do not identify a machine: they stay unchanged.
KEPT = ("run_id", "device", "threads", "gpu", "tf32", "deterministic", "concurrent")

#: Fields that stay if they hold the version of a release, and not of a commit.
VERSIONS = ("python", "bdhf", "torch", "numpy", "cuda")

#: The nouns before letters; other fields use their own name.
_NOUNS = {"host": "machine", "cpu": "processor", "commit": "commit", "dirty": "changes"}

#: Files whose sums an anonymous page carries; from the other sums a name could be guessed.
SUMMED = ("spec.yaml", "curve.parquet")

#: What an anonymous page omits, as text in the page.
LEFT_OUT = (
    "names of hosts, processors and platforms, commits and uncommitted changes (a letter stands "
    "for each), comments of the spec, and paths, addresses and names of users in reasons"
)

_RELEASE = re.compile(r"\d+(\.\d+)*((a|b|rc|\.?post|\.?dev)\d+)*(\+(cpu|cu\d+|rocm[\d.]+|xpu))?")


def anonymous(records: Records) -> Records:
    """The records without identifying values; a deterministic function of the records."""
    names = names_in(records)
    runs = records.runs.assign(reason=records.runs["reason"].map(lambda why: redacted(why, names)))
    return replace(
        records,
        spec_text=without_comments(records.spec_text),
        runs=runs,
        environments=lettered(records.environments),
        tuning=records.tuning and _tuning(records.tuning),
    )


def anonymous_files(files: Mapping[str, RunFiles]) -> dict[str, RunFiles]:
    """The specs of the runs, and the sums of `SUMMED`.

    Raises InputError for a spec with a path or an address, since the run id depends on it.
    """
    paths = {run_id: first_path(entry.spec) for run_id, entry in files.items()}
    lines = [
        f"runs/{run_id}/spec.yaml: --anonymous cannot remove {text!r}, because the id of the run "
        "depends on it; use a path relative to the project in the spec, or a part of your own"
        for run_id, text in paths.items()
        if text
    ]
    if lines:
        raise InputError(lines[:5])
    return {
        run_id: RunFiles(
            spec=entry.spec, sha256={n: s for n, s in entry.sha256.items() if n in SUMMED}
        )
        for run_id, entry in files.items()
    }


def anonymous_study(records: StudyRecords) -> StudyRecords:
    """A study without identifying values."""
    names = users_in(
        [*records.trials["reason"], *records.seeds["reason"], str(records.folder.resolve())]
    )
    names |= _hosts(records.trials)
    trials, seeds = (
        table.assign(reason=table["reason"].map(lambda why: redacted(why, names)))
        for table in (records.trials, records.seeds)
    )
    study = records.study.model_copy(update={"ablation": without_paths(records.study.ablation)})
    return replace(
        records, text=without_comments(records.text), study=study, trials=trials, seeds=seeds
    )


def lettered(environments: pd.DataFrame) -> pd.DataFrame:
    """Replace every identifying value by a letter, from A on; equal values share a letter."""
    names = [str(name) for name in environments if name not in KEPT]
    letters = {
        name: _letters(environments[name], _NOUNS.get(name, name), versions=name in VERSIONS)
        for name in names
    }
    if "own_code" in environments:
        letters["own_code"] = _letters_of_code(environments["own_code"])
    return environments.assign(**letters)


def without_comments(text: str) -> str:
    """A spec without comments, paths and addresses, with otherwise equal content.

    Names of comparisons stay, because the plan of the spec must match the records.
    """
    if not text.strip():
        return text
    content = YAML(typ="safe", pure=True).load(text)
    names = [dict(entry) for entry in _compared(content)]
    yaml, buffer = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    content = _deep(content)
    for entry, before in zip(_compared(content), names, strict=True):
        entry.update({"name": before["name"]} if "name" in before else {})
    yaml.dump(content, buffer)
    return buffer.getvalue()


def names_in(records: Records) -> set[str]:
    """Names of hosts and users, which may occur anywhere in a reason."""
    return users_in(records.runs["reason"]) | _hosts(records.environments)


def _hosts(table: pd.DataFrame) -> set[str]:
    """The hosts in a table, with and without their domain."""
    hosts = set(map(str, table["host"].dropna())) if "host" in table else set()
    return hosts | {host.partition(".")[0] for host in hosts}


def _compared(content: Any) -> list[dict[str, Any]]:
    """The entries of `compare` in a spec."""
    entries = content.get("compare") if isinstance(content, dict) else None
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _tuning(tuning: Tuned) -> Tuned:
    """The tuning record without paths, such as those of other data."""
    arms = {
        label: arm.model_copy(update={"why": without_paths(arm.why)})
        for label, arm in tuning.arms.items()
    }
    fields_without_paths = {
        name: without_paths(getattr(tuning, name)) for name in ("study", "missing")
    }
    return tuning.model_copy(update={**fields_without_paths, "arms": arms})


def _deep(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _deep(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_deep(inner) for inner in value]
    return without_paths(value) if isinstance(value, str) else value


def _letters(column: pd.Series[Any], noun: str, *, versions: bool) -> list[Any]:
    """The column with letters; missing values and booleans stay."""
    letters: dict[str, str] = {}

    def letter(value: Any) -> Any:
        untold = value is None or value is pd.NA or isinstance(value, bool) or value == ""
        untold = untold or (isinstance(value, float) and value != value)
        if untold or (versions and _RELEASE.fullmatch(str(value))):
            return value
        return letters.setdefault(repr(value), f"{noun} {_letter(len(letters))}")

    return [letter(value) for value in column]


def _letters_of_code(column: pd.Series[Any]) -> list[Any]:
    """Replace hashes by letters per module; names of modules stay, as in the spec."""
    letters: dict[str, list[str]] = {}

    def lettered_code(text: Any) -> Any:
        if not isinstance(text, str):
            return text
        hashes: dict[str, str] = {}
        for module, digest in hashes_of_words(text).items():
            seen = letters.setdefault(module, [])
            if digest not in seen:
                seen.append(digest)
            hashes[module] = _letter(seen.index(digest))
        return hashes_in_words(hashes)

    return [lettered_code(text) for text in column]


def _letter(number: int) -> str:
    """Letters in the order A, B to Z, AA, AB.

    >>> [_letter(n) for n in (0, 25, 26, 701, 702)]
    ['A', 'Z', 'AA', 'ZZ', 'AAA']
    """
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text
