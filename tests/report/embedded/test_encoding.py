"""The records that a page carries: they come back to the last bit, and changes are detected."""

import base64
import io
import json
from dataclasses import MISSING, fields, replace
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bdhf.records import (
    DIAGNOSTICS,
    SAFETY_SECONDS,
    ArmTuning,
    Budget,
    Comparison,
    InputError,
    Records,
    Tuned,
)
from bdhf.report import build
from bdhf.report.embedded import encoding, size_limits
from bdhf.report.embedded.archive import RunFiles, lighten, pack, unpack
from bdhf.report.embedded.encoding import decode, encode
from tests.messages import naming
from tests.report.synthetic import save, synthetic_records

TABLES = ("runs", "curves", "environments")


def assert_same(actual: Records, expected: Records, tables=TABLES) -> None:
    """Every field is equal, every value of the tables the same bits."""
    for field in fields(Records):
        left, right = getattr(actual, field.name), getattr(expected, field.name)
        if field.name not in TABLES:
            assert left == right, field.name
        elif field.name in tables:
            pd.testing.assert_frame_equal(left, right, check_exact=True)
            for name in left.select_dtypes("float64"):
                same = left[name].to_numpy().view(np.int64) == right[name].to_numpy().view(np.int64)
                assert (same | left[name].isna()).all(), name


def small(**changes) -> Records:
    """Records with every field filled in."""
    records = synthetic_records(seeds=2, updates=20)
    return replace(
        records,
        budgets={"adam": Budget(seconds=1 / 3)},
        intervals={"adam": 7},
        names={"adam": "adam"},
        values={"adam": {"lr": "0.1"}},
        questions=("block vs full",),
        stops_at_target=True,
        figures=("curves",),
        safety_seconds=1800.0,
        tuning=Tuned(study="studies/x", arms={"adam": ArmTuning(how="tuned", best=1 / 3)}),
        comparisons=(Comparison(name="a", candidate="adam", baseline="full_hf", margin=1.1),),
        twins=(Comparison(name="b", candidate="adam", baseline="adam"),),
        **changes,
    )


def test_what_is_put_in_comes_out(quickstart):
    """All fields and tables, missing statuses, diverged losses and nested environments too."""
    for records in (quickstart, small()):
        assert_same(decode(encode(records)).records, records)


def test_an_archive_of_an_older_version_is_read():
    """It lacks the fields that were added later."""
    records = synthetic_records(seeds=2, updates=20)
    content, changed = pack(records, {}), io.BytesIO()
    with ZipFile(io.BytesIO(content)) as old, ZipFile(changed, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "ablation.json":
                ablation = json.loads(text)
                assert ablation.pop("tuning", "none") is None
                assert ablation.pop("safety_seconds", None) == SAFETY_SECONDS
                assert ablation.pop("twins", None) == []
                text = json.dumps(ablation).encode()
            new.writestr(name, text)

    unpacked, _ = unpack(changed.getvalue())

    assert_same(unpacked, records)


def test_a_field_that_is_added_to_the_records_is_tested_here():
    """The small records have a value other than the default for every optional field."""
    plain, full = synthetic_records(seeds=2, updates=20), small()
    optional = [
        field.name for field in fields(Records)
        if field.default is not MISSING or field.default_factory is not MISSING
    ]  # fmt: skip

    assert len(optional) >= 7
    assert [name for name in optional if getattr(full, name) == getattr(plain, name)] == []


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    losses=arrays(np.float64, 12, elements=st.floats(width=64)),
    counts=st.lists(st.none() | st.integers(0, 2**53), min_size=12, max_size=12),
    texts=st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=4,
                   max_size=4),
)  # fmt: skip
def test_any_number_and_any_text_comes_back(losses, counts, texts):
    """NaN, infinities, -0.0, subnormal numbers, missing counts and odd characters are kept."""
    runs = pd.DataFrame(
        {"arm": "a", "seed": range(4), "run_id": list("abcd"), "status": "done",
         "reason": pd.Series(texts, dtype="str")}
    )  # fmt: skip
    curves = pd.DataFrame(
        {"arm": "a", "seed": np.repeat(range(4), 3), "run_id": np.repeat(list("abcd"), 3),
         "update": pd.array(counts, dtype="Int64"), "val_loss": losses}
    )  # fmt: skip
    records = small(runs=runs, curves=curves)

    block = encode(records)

    assert "<" not in block
    assert_same(decode(block).records, records)


def test_the_same_records_give_the_same_block(quickstart):
    """It depends neither on the clock nor on the order of sets."""
    assert encode(quickstart) == encode(replace(quickstart))


def test_records_without_runs_come_back(quickstart):
    """An ablation of which nothing has run yet is carried as well."""
    nothing = replace(
        quickstart,
        runs=quickstart.runs.assign(status=None),
        curves=quickstart.curves.iloc[:0],
        environments=pd.DataFrame([]),
    )

    assert_same(decode(encode(nothing)).records, nothing)


def test_the_files_of_the_runs_are_carried(quickstart):
    """Specs to the letter, and the sums of the files."""
    files = {"ab": RunFiles(spec="a: </script> λ\n", sha256={"spec.yaml": "00"})}

    decoded = decode(encode(quickstart, files))

    assert decoded.files == files
    assert len(decoded.sha256) == 64


@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 0.99])
def test_a_changed_character_is_reported_in_one_line(quickstart, position):
    """At any position, in the header or in the content."""
    block = encode(quickstart)
    at = next(i for i in range(int(position * len(block)), len(block)) if block[i].isdigit())
    changed = block[:at] + str((int(block[at]) + 1) % 10) + block[at + 1 :]

    with pytest.raises(InputError, match=r"^a\.html: its records") as error:
        decode(changed, "a.html")

    assert len(error.value.lines) == 1


@pytest.mark.parametrize("where", ["a key of the header", "a version", "the content"])
def test_no_block_can_begin_an_element(quickstart, where, monkeypatch):
    """The page contains it unescaped: markup inside it must not become visible."""
    words = "</script><p>better</p>"
    if where == "a version":
        monkeypatch.setattr(encoding, "versions", lambda: {"bdhf": words})
    block = encode(quickstart)
    header, body = block.split("\n", 1)
    if where == "a key of the header":
        content = base64.b85decode("".join(body.split()).replace(",", "<"))
        more = {k: v for k, v in json.loads(header).items() if k != "sha256"} | {"x": words}
        block = json.dumps({**more, "sha256": encoding._sum(more, content)}) + "\n" + body
    elif where == "the content":
        block = header + "\n" + body.replace(",", "<")

    with pytest.raises(InputError, match=r"its records.*`<`"):
        decode(block)


@pytest.mark.parametrize("rest", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_block_is_reported_in_one_line(quickstart, rest):
    """Wherever it is cut; the line has the command that makes it again."""
    block = encode(quickstart)

    with pytest.raises(InputError, match=naming("bdhf report RESULTS")) as error:
        decode(block[: int(rest * len(block))])

    assert len(error.value.lines) == 1


def test_a_block_of_a_newer_bdhf_is_reported_in_one_line(quickstart):
    """It has the version, the largest version that is read, and the advice to upgrade."""
    header, body = encode(quickstart).split("\n", 1)
    newer = json.dumps({**json.loads(header), "capsule": 2})

    with pytest.raises(InputError, match=naming("version 2", "up to version 1", "upgrade bdhf")):
        decode(f"{newer}\n{body}")


def test_content_that_is_no_archive_is_reported_in_one_line(quickstart, monkeypatch):
    """Also where its sum is right."""
    monkeypatch.setattr(encoding, "pack", lambda records, files: b"PK, but no archive")

    with pytest.raises(InputError, match=r"^the records: ") as error:
        decode(encode(quickstart))

    assert len(error.value.lines) == 1


def many(evaluations: int) -> pd.DataFrame:
    """Curves of three runs, one of them short, with every diagnostic at random."""
    rng = np.random.default_rng(0)
    lengths = (evaluations, evaluations + 1, 10)
    parts = [
        pd.DataFrame(
            {"arm": "a", "seed": seed, "run_id": f"{seed}", "update": np.arange(n),
             "val_loss": rng.random(n), **{name: rng.random(n) for name in DIAGNOSTICS}}
        )
        for seed, n in enumerate(lengths)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_a_heavy_block_has_diagnostics_in_short_and_all_else_exact(quickstart, monkeypatch):
    """Columns of verdicts stay exact; diagnostics are float32 at 25 evaluations per run."""
    monkeypatch.setattr(encoding, "HEAVY", 1000)
    records = replace(quickstart, curves=many(200))

    decoded = decode(encode(records))

    assert decoded.light
    exact = [name for name in records.curves if name not in DIAGNOSTICS]
    pd.testing.assert_frame_equal(
        decoded.records.curves[exact], records.curves[exact], check_exact=True
    )
    kept = decoded.records.curves.groupby("seed")["damping"].count()
    assert kept.to_dict() == {0: 25, 1: 25, 2: 10}
    there = decoded.records.curves["damping"].dropna()
    rounded = records.curves.loc[there.index, "damping"].to_numpy(np.float32)
    assert (there.to_numpy() == rounded.astype(float)).all()
    first_and_last = decoded.records.curves.groupby("seed")["damping"].agg(["first", "last"])
    whole = records.curves.groupby("seed")["damping"].agg(["first", "last"])
    assert (first_and_last == whole.astype(np.float32).astype(float)).all(axis=None)


@pytest.mark.parametrize("evaluations", [1, 2, 24, 25, 26, 49, 51, 74, 1000])
def test_lightening_twice_is_lightening_once(evaluations):
    """A curve alone is lightened as among others, so a repeated run can be compared."""
    curves = many(evaluations)
    once = lighten(curves)

    pd.testing.assert_frame_equal(lighten(once), once)
    for seed in range(3):
        alone = curves[curves["seed"] == seed].drop(columns=["arm", "seed"])
        among = once[once["seed"] == seed].drop(columns=["arm", "seed"])
        pd.testing.assert_frame_equal(lighten(alone), among)
        assert among["damping"].count() == min(25, len(among))


def test_what_float32_cannot_hold_stays():
    """A diagnostic is never rounded to infinity."""
    curves = pd.DataFrame({"damping": [1e300, np.inf, -1e300]})

    assert lighten(curves)["damping"].to_list() == [1e300, np.inf, -1e300]


def test_the_order_of_arms_and_rows_changes_no_byte_of_a_folder(quickstart, tmp_path):
    """Comparisons and report are the same bytes, what the report carries included."""
    arms = [
        {"label": arm, "name": arm, "budget": {"updates": 120}, "evaluate_every": 4}
        for arm in quickstart.arms
    ]
    entries = [entry.model_dump(exclude_none=True) for entry in quickstart.comparisons]
    made = []
    for turn in (slice(None), slice(None, None, -1)):
        turned = replace(quickstart, runs=quickstart.runs[turn], curves=quickstart.curves[turn])
        folder = save(turned, tmp_path / str(turn.step))
        index = {"arms": arms[turn], "comparisons": entries}
        (folder / "plan.json").write_text(json.dumps(index), encoding="utf-8")
        made.append(
            (build(folder).path.read_bytes(), (folder / "comparisons.parquet").read_bytes())
        )

    assert made[0] == made[1]


@pytest.mark.parametrize("bound", [1000, 20_000])
def test_records_that_would_unpack_to_too_much_are_refused(quickstart, monkeypatch, bound):
    """By the sizes that the archive states, before any of it is unpacked."""
    block = encode(quickstart)
    monkeypatch.setattr(size_limits, "MOST_BYTES", bound)
    monkeypatch.setattr(ZipFile, "open", lambda *_: pytest.fail("it was unpacked"))

    with pytest.raises(InputError, match=naming("archive", "0 MB")) as error:
        decode(block)

    assert len(error.value.lines) == 1


def test_a_table_that_would_be_too_large_is_refused(quickstart, monkeypatch):
    """Its cells, and the texts that many of them share."""
    times = 3000
    runs = pd.concat([quickstart.runs] * times, ignore_index=True).assign(reason="x" * 1000)
    curves = quickstart.curves
    block = encode(replace(quickstart, runs=runs, curves=curves))
    size = 8 * len(runs) * runs.shape[1]

    for bound in (size - 1, 2 * size):
        monkeypatch.setattr(size_limits, "MOST_BYTES", bound)
        with pytest.raises(InputError, match=naming("table", f"{bound // 2**20} MB")):
            decode(block)


def test_a_member_that_is_longer_or_shorter_than_it_states_is_refused():
    """No more is read than is stated."""
    written = io.BytesIO()
    with ZipFile(written, "w") as archive:
        archive.writestr("a", b"0123456789")
    with ZipFile(written) as archive:
        assert size_limits.read_member(archive, "a") == b"0123456789"
        archive.getinfo("a").file_size = 12
        with pytest.raises((BadZipFile, EOFError)):
            size_limits.read_member(archive, "a")


def test_what_is_no_file_and_what_is_too_large_is_no_page(tmp_path, monkeypatch):
    """Neither is read."""
    page = tmp_path / "page.html"
    page.write_text("x" * 100)
    monkeypatch.setattr(size_limits, "MOST_OF_A_PAGE", 99)

    for path, facts in ((tmp_path, ("file",)), (page, ("0 MB",))):
        with pytest.raises(InputError, match=naming(path, *facts)):
            size_limits.read_page(path)
