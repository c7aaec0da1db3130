"""For any spec the command reports faults in lines, and writes nothing for a bad one."""

from __future__ import annotations

import copy
import json
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.experiments.spec.yaml_source import parse
from tests.experiments.specs import SMALL, changed

pytestmark = pytest.mark.slow

GRID = changed(
    (
        "seeds:",
        "grid:\n  batch.curvature: [50, 0.5]\n  arms.full_hf.partition: [full, per_layer]\n"
        "exclude: [{arm: adam, batch.curvature: 0.5}]\n"
        "settings: [{at: {batch.curvature: 50}, set: {arms.adam.lr: 0.1, budget.updates: 4}}]\n"
        "seeds:",
    )
)
TEXTS = (SMALL, GRID)
WORDS = (
    "full", "cg", "block_hf", "torch.Adam", "torch.LBFGS", "per_neuron", "mlp", "transformer",
    "val_loss", "encoder.*", "arms.full_hf.lr", "batch", "type", "os:system", "no.such:part",
    "at_target", "levenberg_marquardt", "", "a b", "1e-3", "é", "[", "{", "&x", "*x", "!t", "null",
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.sampled_from(WORDS),
    st.floats(allow_nan=True), st.text(max_size=4),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths(node, path=()):
    """Every path in the data."""
    yield path
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, inner in items:
        yield from paths(inner, (*path, key))


@st.composite
def mutated(draw):
    """A good spec with up to three entries replaced, removed, renamed or added, as text."""
    data = copy.deepcopy(parse(draw(st.sampled_from(TEXTS))).data)
    for _ in range(draw(st.integers(1, 3))):
        inner = sorted((path for path in paths(data) if path), key=str)
        if not inner:
            break
        *outer, key = draw(st.sampled_from(inner))
        node = data
        for step in outer:
            node = node[step]
        change = draw(st.sampled_from(("replace", "remove", "rename", "add")))
        if change == "replace":
            node[key] = draw(VALUES)
        elif change == "remove" or isinstance(node, list):
            del node[key]
        elif change == "rename":
            node[draw(st.sampled_from(WORDS) | st.text(max_size=3))] = node.pop(key)
        else:
            node[draw(st.sampled_from(WORDS))] = draw(VALUES)
    return json.dumps(data)


@st.composite
def garbled(draw):
    """The text of a good spec with some characters replaced, removed or inserted."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text) - 1))
        new = draw(st.sampled_from(["", *string.punctuation, "\n", " ", "\t", "0", "é", "\x00"]))
        text = text[:at] + new + text[at + draw(st.integers(0, 1)) :]
    return text


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=mutated() | garbled())
def test_a_mutated_spec_is_planned_or_reported_in_lines(tmp_path, text):
    """Exit code 0 or 2, never a traceback; faults appear on stderr; nothing is written."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(text, encoding="utf-8", errors="surrogatepass")

    done = CliRunner().invoke(app, ["plan", str(spec), "--out", str(tmp_path / "out")])

    assert isinstance(done.exception, (SystemExit, type(None))), text
    assert done.exit_code in (0, 2), text
    assert "Traceback" not in done.output
    if done.exit_code == 2:
        assert done.stderr.strip(), text
        assert all(line.startswith(str(spec)) for line in done.stderr.splitlines()), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
