"""A page is compared with its own records: every change is detected."""

import re
from dataclasses import replace

import pytest

from bdhf.records import InputError
from bdhf.records.disk.checksums import digest
from bdhf.report.ablation.build import built_report
from bdhf.report.embedded import encoding
from bdhf.report.embedded.archive import ARCHIVED_FILES, RunFiles
from bdhf.report.embedded.encoding import decode, encode
from bdhf.report.verify import verify
from bdhf.report.verify.page_contents import count_numbers, take_apart
from tests.messages import naming
from tests.report.synthetic import ENTRIES, synthetic_records


def files_of(records):
    """Files as in the folders of the runs that have ended."""
    spec = "seed: 0\n"
    sums = dict.fromkeys(ARCHIVED_FILES, digest(b"")) | {"spec.yaml": digest(spec.encode())}
    ended = records.runs.loc[records.runs["status"].notna(), "run_id"]
    return {run_id: RunFiles(spec=spec, sha256=sums) for run_id in ended}


def paged(records, folder, files=None, name="report.html"):
    """The page of records, in a file."""
    block = encode(records, files_of(records) if files is None else files)
    path = folder / name
    path.write_text(built_report(decode(block).records, block).report.html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def study():
    """Runs that hit, miss, diverge and are missing; with figures that are drawn fast."""
    records = synthetic_records(updates=60, every=4, seeds=8, comparisons=ENTRIES[:1])
    return replace(records, figures=("forest", "survival"), stops_at_target=True)


@pytest.fixture(scope="module")
def honest(study, tmp_path_factory):
    """A page as it was made."""
    return paged(study, tmp_path_factory.mktemp("honest"))


@pytest.fixture
def changed(honest, tmp_path):
    """Change a piece of the page, once, and verify it."""

    def change_and_verify(old, new, count=1):
        text = honest.read_text(encoding="utf-8")
        assert re.search(old, text), old
        path = tmp_path / "changed.html"
        path.write_text(re.sub(old, new, text, count=count), encoding="utf-8")
        return verify.verify(path)

    return change_and_verify


def test_an_honest_page_agrees(honest):
    """Every line, figure and number is compared."""
    verified = verify.verify(honest)

    assert verified.agrees
    assert (verified.lines, verified.drawings, verified.contradictions) == ((), (), ())
    assert verified.runs == 23
    assert verified.figures == len(re.findall("<svg", honest.read_text(encoding="utf-8"))) > 1
    assert verified.numbers > 100
    assert verified.other_versions == {}


def test_the_page_carries_what_it_shows(study, honest):
    """The records that are taken out of a page are those that it was made from."""
    text = honest.read_text(encoding="utf-8")
    decoded = decode(verify.block_of(text, "page"))

    assert decoded.records.runs.equals(study.runs)
    assert text.count('id="records"') == 1
    assert text.rstrip().endswith("</script>\n</body>\n</html>")
    assert "bdhf verify report.html" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"(needed <a [^>]*>)0\.(\d)", r"\g<1>0.1\2"),
        (r"→ [^<]+</p>", "→ equivalent</p>"),
        (r"<td>diverged</td>|diverged", "done"),
        (r'aria-label="[^"]*?(\d)', 'aria-label="9'),
        (r"<figcaption>", "<figcaption>Drawn by hand. "),
        (r"below: 0\.02", "below: 0.03"),
        (r"AMD EPYC", "AMD Ryzen"),
        (r"--better: #", "--better: #0"),
    ],
    ids=["effect", "verdict", "status", "alt text", "caption", "spec", "provenance", "style"],
)
def test_a_changed_word_or_number_is_found_with_its_line(honest, changed, old, new):
    """The number of the line in the file, its text, and the text that the records give."""
    verified = changed(old, new)

    assert not verified.agrees
    assert verified.differing == 1
    (line,) = verified.lines
    before = honest.read_text(encoding="utf-8").split("\n")
    if "<svg" not in before[line.number - 1]:
        assert line.gives == before[line.number - 1]
    assert re.sub(old, new, before[line.number - 1], count=1) != before[line.number - 1]
    assert line.says != line.gives


def test_a_line_that_was_added_or_taken_out_is_one_line(honest, tmp_path):
    """All other lines are aligned."""
    lines = honest.read_text(encoding="utf-8").split("\n")
    at = next(i for i, line in enumerate(lines) if "<h2>Verdicts</h2>" in line)
    path = tmp_path / "page.html"

    path.write_text("\n".join([*lines[:at], "<p>Accept!</p>", *lines[at:]]), encoding="utf-8")
    added = verify.verify(path)
    path.write_text("\n".join([*lines[:at], *lines[at + 1 :]]), encoding="utf-8")
    gone = verify.verify(path)

    assert [(line.number, line.says, line.gives) for line in added.lines] == [
        (at + 1, "<p>Accept!</p>", None)
    ]
    assert [(line.says, line.gives) for line in gone.lines] == [(None, lines[at])]


def test_at_most_twenty_lines_are_reported(changed):
    """The total is counted."""
    verified = changed(r"<td", "<td ", count=0)

    assert len(verified.lines) == 20
    assert verified.differing > 20


PATH = r'(<path d="M \d+)'


def test_a_changed_drawing_is_found(changed):
    """With the same matplotlib, a moved path is a difference."""
    verified = changed(PATH, r"\g<1>1")

    assert not verified.agrees
    assert verified.differing == 0
    assert list(verified.drawings) == ["forest"]  # the first of the page


def test_a_drawing_of_another_matplotlib_is_reported_but_no_failure(study, tmp_path, monkeypatch):
    """Its texts must still agree."""
    with monkeypatch.context() as patch:
        other = {**encoding.versions(), "matplotlib": "2.0.2"}
        patch.setattr(encoding, "versions", lambda: other)
        path = paged(study, tmp_path)
    text = re.sub(PATH, r"\g<1>1", path.read_text(encoding="utf-8"), count=1)
    path.write_text(text, encoding="utf-8")

    verified = verify.verify(path)
    path.write_text(text.replace("<figcaption>", "<figcaption>Not ", 1), encoding="utf-8")
    with_other_words = verify.verify(path)

    assert verified.agrees
    assert len(verified.drawings) == 1
    assert verified.other_versions["matplotlib"][0] == "2.0.2"
    assert not with_other_words.agrees


def test_hashes_in_ids_may_be_others_and_what_they_name_may_not(honest, tmp_path):
    """Ids of matplotlib hash the last bits, which another processor rounds differently."""
    text = honest.read_text(encoding="utf-8")
    hashes = sorted(set(re.findall(r'id="forest-[a-zA-Z]([0-9a-f]{10})"', text)))
    others = {old: f"{int(old, 16) ^ 1:010x}" for old in hashes}
    pattern = re.compile("|".join(hashes))
    path = tmp_path / "page.html"

    path.write_text(pattern.sub(lambda m: others[m[0]], text), encoding="utf-8")
    assert hashes
    assert path.read_text(encoding="utf-8") != text
    assert verify.verify(path).agrees

    path.write_text(text.replace(f'{hashes[0]}"', '0123456789"', 1), encoding="utf-8")
    assert list(verify.verify(path).drawings) == ["forest"]


def test_a_figure_that_was_taken_out_is_found(changed):
    """With its frame, or without."""
    assert not changed(r"(?s)<svg.*?</svg>", "").agrees
    assert not changed(r"(?s)<figure.*?</figure>", "").agrees


def swapped(study, honest, tmp_path):
    """The honest page with the block of other records, whose sum is right."""
    text = honest.read_text(encoding="utf-8")
    block = encode(study, files_of(study))
    path = tmp_path / "swapped.html"
    path.write_text(text.replace(verify.block_of(text, ""), block), encoding="utf-8")
    return verify.verify(path)


def test_runs_that_were_taken_out_of_the_records_are_found(study, honest, tmp_path):
    """The page still counts them."""
    without = replace(
        study,
        runs=study.runs[study.runs["seed"] != 3].reset_index(drop=True),
        curves=study.curves[study.curves["seed"] != 3].reset_index(drop=True),
    )

    verified = swapped(without, honest, tmp_path)

    assert not verified.agrees
    assert any("8 seeds" in (line.says or "") for line in verified.lines)
    assert any("7 seeds" in (line.gives or "") for line in verified.lines)


def test_a_loss_that_was_changed_in_the_records_is_found(study, honest, tmp_path):
    """One number of one curve."""
    curves = study.curves.copy()
    row = curves.index[(curves["arm"] == "adam") & (curves["seed"] == 1)][-1]
    curves.loc[row, "val_loss"] *= 0.5

    assert not swapped(replace(study, curves=curves), honest, tmp_path).agrees


def test_records_that_contradict_themselves_are_found(study, tmp_path):
    """Where page and records agree, the table of runs must agree with the curves."""
    runs = study.runs.assign(update=study.runs["update"].where(study.runs.index != 2, 1.0))

    verified = verify.verify(paged(replace(study, runs=runs), tmp_path))

    assert not verified.agrees
    assert verified.differing == 0
    assert verified.contradictions == (
        "adam seed 2: the table of runs has update 1.0, the last row of its curve "
        f"{float(study.runs['update'][2])!r}",
    )


@pytest.mark.parametrize("column", ["status", "run_id", "seed"])
def test_records_that_make_no_page_are_one_line(study, honest, tmp_path, column):
    """A table without a column that every one has."""
    runs = study.runs.drop(columns=column)
    text = honest.read_text(encoding="utf-8")
    path = tmp_path / "odd.html"
    block = encode(replace(study, runs=runs), files_of(study))
    path.write_text(text.replace(verify.block_of(text, ""), block), encoding="utf-8")

    with pytest.raises(InputError, match=naming(path, "records")) as error:
        verify.verify(path)

    assert len(error.value.lines) == 1


def test_what_no_drawing_of_ours_holds_is_found_whatever_drew_it(study, tmp_path, monkeypatch):
    """Also where another matplotlib leaves the paths unchecked; reported with the figure's name."""
    with monkeypatch.context() as patch:
        other = {**encoding.versions(), "matplotlib": "2.0.2"}
        patch.setattr(encoding, "versions", lambda: other)
        path = paged(study, tmp_path)
    text = path.read_text(encoding="utf-8")
    for new, told in (("<script>1</script>", "script"), ('<g onclick="f()"/>', "onclick")):
        path.write_text(text.replace("</svg>", f"{new}</svg>", 1), encoding="utf-8")

        verified = verify.verify(path)

        assert not verified.agrees
        assert verified.differing == 0
        assert all(what.startswith("forest: ") for what in verified.foreign)
        assert told in verified.foreign[0]


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        (r'(id="records">\n[^\n]*\n.{1000})..', r"\g<1>zz", "bdhf report RESULTS"),
        (r"(?s)<script.*</script>", "", "bdhf report RESULTS"),
        (r"(?s)(<script[^\n]*\n[^\n]*\n[^\n]*\n).*", r"\1", "bdhf report RESULTS"),
        ('"capsule": 1', '"capsule": 7', "upgrade bdhf"),
    ],
    ids=["changed", "taken out", "cut", "newer"],
)
def test_records_that_cannot_be_trusted_are_one_line(changed, old, new, advice):
    """With the file and what to do."""
    with pytest.raises(InputError, match=naming(advice)) as error:
        changed(f"(?s){old}" if "{1000}" in old else old, new)

    assert len(error.value.lines) == 1
    assert "changed.html" in error.value.lines[0]


def test_a_file_that_is_no_page_is_one_line(tmp_path):
    """No file, or no text."""
    with pytest.raises(InputError, match=naming("none.html", "No such file")):
        verify.verify(tmp_path / "none.html")
    (tmp_path / "bytes.html").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=naming("bytes.html", "utf-8")):
        verify.verify(tmp_path / "bytes.html")


def test_other_ends_of_lines_change_nothing(honest, tmp_path):
    """A page that went through Windows still agrees."""
    path = tmp_path / "crlf.html"
    path.write_bytes(honest.read_bytes().replace(b"\n", b"\r\n"))

    assert verify.verify(path).agrees


def test_taken_apart_a_page_keeps_its_lines_and_their_numbers(honest):
    """Every line outside drawings occurs once, under its number in the file."""
    text = honest.read_text(encoding="utf-8")
    lines, page = text.split("\n"), take_apart(text)

    assert all(
        lines[number - 1] == line
        for number, line in zip(page.numbers, page.lines, strict=True)
        if "svg" not in lines[number - 1]
    )
    outside = re.sub(r"(?s)<svg.*?</svg>", "", text).split("\n")
    assert [x for x in page.lines if x and "<svg" not in x] == [x for x in outside if x]
    assert [drawing.name for drawing in page.drawings] == re.findall(r'<figure id="([^"]*)"', text)


def test_numbers_of_the_spec_and_of_the_records_are_not_counted():
    """They are not computed."""
    page = (
        '<head>1</head><style>2</style><p>3 of 4, 1,234.5 × 1e-3</p><svg aria-label="5 runs">'
        '<path d="M 6 7"/></svg><section id="spec">8</section><script>9</script>'
    )

    assert count_numbers(page) == 5
