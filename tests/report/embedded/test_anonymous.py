"""A page for a double-blind review: it does not identify, and its verdicts are the same."""

import getpass
import json
from dataclasses import replace

import pandas as pd
import pytest
from ruamel.yaml import YAML

from bdhf.records import ArmTuning, InputError, Tuned
from bdhf.records.disk.checksums import digest
from bdhf.report.ablation.build import ANONYMOUS_PAGE, built_report
from bdhf.report.embedded.anonymous import (
    SUMMED,
    anonymous,
    anonymous_files,
    anonymous_study,
    lettered,
    without_comments,
)
from bdhf.report.embedded.archive import ARCHIVED_FILES, RunFiles
from bdhf.report.embedded.encoding import decode, encode
from bdhf.report.embedded.redaction import redacted
from bdhf.report.study.render import build_study
from bdhf.report.verify.verify import block_of, verify
from bdhf.stats.compare import compare
from tests.messages import naming
from tests.report.identifying import IDENTIFYING, PLACES, TRACE, unpacked
from tests.report.synthetic import ENTRIES, QUICKSTART, Arm, synthetic_records
from tests.report.synthetic_held_out import save_study
from tests.report.synthetic_study import ARMS, Searched, synthetic_study

COMMENT = "# Ada Lovelace, /home/lovelace/notes\n"


@pytest.fixture(scope="module")
def named():
    """Records of two machines, with runs that failed and name their author."""
    broken = Arm(tau=60.0, status={1: ("error", TRACE), 2: ("timeout", "longer than 600 s")})
    records = synthetic_records(QUICKSTART | {"broken": broken}, seeds=4, updates=60, every=4,
                      comparisons=ENTRIES)  # fmt: skip
    turn = [i % 2 for i in range(len(records.environments))]
    places = {name: [values[i] for i in turn] for name, values in PLACES.items()}
    return replace(
        records,
        figures=("forest",),
        stops_at_target=True,
        spec_text=COMMENT + records.spec_text,
        environments=records.environments.assign(**places),
    )


def files_of(records):
    """Files as in the folders of the runs."""
    sums = dict.fromkeys(ARCHIVED_FILES, digest(b"")) | {"spec.yaml": digest(b"seed: 0\n")}
    ended = records.runs.loc[records.runs["status"].notna(), "run_id"]
    return {run_id: RunFiles(spec="seed: 0\n", sha256=sums) for run_id in ended}


@pytest.fixture(scope="module")
def page(named, tmp_path_factory):
    """The anonymous page of these records."""
    block = encode(anonymous(named), anonymous_files(files_of(named)), anonymous=True)
    html = built_report(decode(block).records, block, anonymous=True).report.html
    path = tmp_path_factory.mktemp("anonymous") / ANONYMOUS_PAGE
    path.write_text(html, encoding="utf-8")
    return path


def test_neither_the_page_nor_what_it_carries_identifies(named, page):
    """No identifying string of the records is left, in any case; the named page has them."""
    block = encode(named, files_of(named))
    open_page = built_report(decode(block).records, block).report.html
    html = page.read_text(encoding="utf-8")

    for text in (html, unpacked(html)):
        assert [word for word in IDENTIFYING if word in text.lower()] == []
    for text in (open_page, unpacked(open_page)):
        assert [word for word in IDENTIFYING if word in text.lower()] == list(IDENTIFYING)


def test_it_says_the_same_of_what_was_asked(named):
    """Verdicts and intervals are equal, and flags have letters for machines."""
    nameless, full = compare(anonymous(named)), compare(named)

    assert [len(result.flags) for result in nameless] == [len(result.flags) for result in full]
    without = [[replace(result, flags=()) for result in results] for results in (nameless, full)]
    assert repr(without[0]) == repr(without[1])  # NaN is not NaN


def test_it_agrees_with_itself_and_says_what_was_left_out(page):
    """On the page, and in the output of `bdhf verify`."""
    verified = verify(page)

    assert verified.agrees
    assert verified.embedded.anonymous
    assert "<strong>Anonymous:</strong>" in page.read_text(encoding="utf-8")


def test_an_anonymous_page_that_is_changed_is_found(page, tmp_path):
    """Its notice too."""
    text = page.read_text(encoding="utf-8")
    changed = tmp_path / "changed.html"
    for old, new in (("<strong>Anonymous:</strong>", ""), ("machine A", "machine B")):
        changed.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert not verify(changed).agrees


def test_machines_are_letters_and_what_was_set_stays(named):
    """Equal values share a letter; releases, devices and empty values stay."""
    places = lettered(named.environments)

    assert places["host"].tolist()[:3] == ["machine A", "machine B", "machine A"]
    assert places["cpu"].tolist()[:2] == ["processor A", "processor B"]
    assert places["queue"].unique().tolist() == ["queue A"]
    assert places["dirty"].tolist()[:2] == ["changes A", ""]
    assert places["bdhf"].tolist()[:2] == ["bdhf A", "0.9.1"]
    assert places["torch"].tolist()[:2] == PLACES["torch"]
    for name in ("run_id", "threads", "gpu", "python"):
        assert places[name].tolist() == named.environments[name].tolist()


def test_code_of_own_parts_is_a_letter_for_every_module(named):
    """It shows which runs share code, so comparisons have the same flags."""
    where = named.environments.iloc[:3].assign(own_code=["lab 12, opt 9", "lab 34", None])

    assert lettered(where)["own_code"].fillna("").tolist() == ["lab A, opt A", "lab B", ""]


def test_sums_of_files_in_which_names_could_be_guessed_are_left_out(named):
    """A guess of the host could be checked with the sum of env.json."""
    files = anonymous_files(files_of(named))

    assert {tuple(entry.sha256) for entry in files.values()} == {SUMMED}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("File /home/ada/x.py, line 3", "File [path], line 3"),
        ('File "/home/Ada King/x.py", line 3', 'File "[path]", line 3'),
        ("no /home/Ada King/x.py there", "no [path] there"),
        ("~ada/x and ~/y", "[path] and [path]"),
        ("../../home/ada/x: gone", "[path]: gone"),
        (r"C:\Users\ada\x.txt", "[path]"),
        (r"\\server\ada\x", "[path]"),
        ("mail ada.king@uni.edu now", "mail [e-mail] now"),
        ("at https://ada.org/x?y=1", "at [address]"),
        ("connect 192.168.1.17 failed", "connect [address] failed"),
        ("connect fe80::1ff:fe23:4567:890a failed", "connect [address] failed"),
        ("no answer of filer.uni-example.edu:5432", "no answer of [address]:5432"),
        ("push to git@github.com:king/engine.git", "push to [e-mail]"),
        ("ssh king@lab-3: refused", "ssh [e-mail]: refused"),
        ("HF@100 and a @ b", "HF@100 and a @ b"),
        (
            "torch.nn.functional.linear at 12:30:45, x[0:1:2]",
            "torch.nn.functional.linear at 12:30:45, x[0:1:2]",
        ),
        ("ADA has no rights", "[name] has no rights"),
        ("val_loss is nan at update 14", "val_loss is nan at update 14"),
        ("3/8 of data/mnist and a/b: 0.5 N/A", "3/8 of data/mnist and a/b: 0.5 N/A"),
        ("Adam and nomad", "Adam and nomad"),
    ],
)
def test_paths_addresses_and_names_go_from_a_reason(text, left):
    """Words that only contain a name, and fractions, stay."""
    assert redacted(text, {"ada"}) == left


def test_the_user_who_is_logged_in_is_a_name(named):
    """Also without a path."""
    runs = named.runs.assign(reason=f"PermissionError: {getpass.getuser()}")

    assert set(anonymous(replace(named, runs=runs)).runs["reason"]) == {"PermissionError: [name]"}


def test_what_a_study_did_elsewhere_is_reported_without_its_paths(named):
    """The reason may contain the path of its data in a home."""
    why = "tuned on another problem: folder data, tuned /home/lovelace/cards"
    tuned = Tuned(study="studies/x", arms={"adam": ArmTuning(how="elsewhere", why=why)})

    (arm,) = anonymous(replace(named, tuning=tuned)).tuning.arms.values()

    assert arm.why == "tuned on another problem: folder data, tuned [path]"


def test_a_spec_keeps_its_content_and_loses_its_comments():
    """Numbers, anchors and block texts with a # stay; paths are removed."""
    text = (
        "# of Ada\nname: 'a # b'  # Ada\nseeds: &s {count: 3, base: 1e-3}\nother: *s\n"
        "no: yes\ntext: |\n  # stays\n  so\nlist: [1, 2.5, 010, '010', null, true]\n"
        "tuned_from: /home/ada/studies/x\n"
    )
    read = YAML(typ="safe", pure=True).load

    kept = without_comments(text)

    assert "Ada" not in kept
    assert read(kept) == read(text) | {"tuned_from": "[path]"}
    assert without_comments(kept) == kept


def test_names_of_comparisons_stay_in_the_spec():
    """The tables have them, and the plan of the spec must match."""
    names = ["block /full", "a@b.org", "HF@100"]
    text = "\n".join(["compare:", *(f"  - {{name: {name!r}, candidate: x}}" for name in names)])

    kept = YAML(typ="safe", pure=True).load(without_comments(text))

    assert [entry["name"] for entry in kept["compare"]] == names
    assert without_comments("compare: [1]\n") == "compare:\n- 1\n"


def test_a_path_that_is_part_of_a_run_is_refused_in_a_line():
    """The run id depends on it: the line has the file, the option and the path."""
    spec = "problem: {type: lab.data:Cards, folder: /home/ada/cards}\n"

    with pytest.raises(
        InputError, match=naming("runs/ab/spec.yaml", "--anonymous", "/home/ada/cards")
    ):
        anonymous_files({"ab": RunFiles(spec=spec, sha256={})})


def test_the_page_of_a_study_does_not_identify_either(tmp_path):
    """The file has no comments and the reasons have no names; the other page stays."""
    arms = ARMS | {"adam": Searched(best=95.0, status={3: ("error", f"on turing-7: {TRACE}")})}
    records = synthetic_study(arms)
    study = records.study.model_copy(update={"ablation": "/home/lovelace/cards.yaml"})
    text = COMMENT + "name: x\nablation: /home/lovelace/cards.yaml\n"
    trials = records.trials.assign(host="turing-7.uni-example.edu")
    folder = save_study(replace(records, study=study, text=text, trials=trials), tmp_path / "s")

    open_page = build_study(folder).path
    before = open_page.read_bytes()
    built = build_study(folder, anonymous=True)

    html = built.path.read_text(encoding="utf-8").lower()
    assert built.path.name == ANONYMOUS_PAGE
    assert [word for word in IDENTIFYING if word in html] == []
    assert "anonymous:" in html
    assert "lovelace" in before.decode().lower()
    assert open_page.read_bytes() == before
    assert anonymous_study(records).trials["trial"].equals(records.trials["trial"])


def test_letters_continue_beyond_z():
    """AA follows Z, as in the columns of a spreadsheet."""
    hosts = pd.DataFrame({"host": [f"h{i}" for i in range(28)]})

    assert lettered(hosts)["host"].tolist()[25:] == ["machine Z", "machine AA", "machine AB"]


def test_json_of_the_header_says_it(named, page):
    """The header of other pages has no such key, so these keep their bytes."""
    header = block_of(page.read_text(encoding="utf-8"), "page").split("\n")[0]

    assert json.loads(header)["anonymous"] is True
    assert "anonymous" not in json.loads(encode(named).split("\n")[0])
