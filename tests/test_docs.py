"""The pages are true: their Python runs, their links lead somewhere, their files exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
PAGES = [
    *(Path(name) for name in (*DOCUMENTS, "CHANGELOG.md")),
    *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")),
]
FILES = [
    f"/{path.relative_to(ROOT)}"
    for folder in ("bdhf", "tests", "asv_bench", "studies")
    for path in (ROOT / folder).rglob("*.*")
]

#: Paths that the pages name as an example of what a user makes.
EXAMPLES = {
    "bdhf/optim/partitions/weights_and_biases.py",
    "studies/NAME",
    "studies/NAME/study.json",
}


def blocks(document, language):
    """The code blocks of a document in one language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def heading_anchors(text):
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(page, link):
    """Whether a relative link of a page leads to a file and, with an anchor, to a heading."""
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    if not target.exists():
        return False
    return not anchor or anchor in heading_anchors(target.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_of_the_documents_runs(document, capsys):
    """The Python blocks of a document run, one after the other, as a reader would type them."""
    namespace = {}

    for block in blocks(document, "python"):
        exec(compile(block, document, "exec"), namespace)

    assert len(namespace) > 3


def test_the_first_example_prints_what_the_readme_shows(capsys):
    """Its loss falls at every update, to the digits that stand below it."""
    example = blocks("README.md", "python")[0]
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split(example)[1].split("```")[2]

    exec(compile(example, "README.md", "exec"), {})

    losses = [float(word) for word in capsys.readouterr().out.split()]
    assert losses == [float(word) for word in shown.removeprefix("text").split()]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.1 * losses[0]


def test_the_partition_of_the_guide_is_a_partition():
    """The ten lines of CONTRIBUTING give blocks that the optimizer accepts."""
    import torch
    from torch import nn

    import bdhf

    namespace = {}
    exec(blocks("CONTRIBUTING.md", "python")[0], namespace)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    optimizer = bdhf.BlockHessianFree(
        model, nn.functional.mse_loss, partition=namespace["WeightsAndBiases"]()
    )

    optimizer.step((torch.randn(8, 4), torch.randn(8, 1)))

    assert [len(block) for block in optimizer.blocks.positions()] == [15, 4]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_of_a_page_lead_somewhere(page):
    """Every relative link leads to a file, and its anchor to a heading of that file."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]

    assert [link for link in links if not leads_somewhere(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_a_page_names_exist(page):
    """Every Python file, template or path of a folder of the repository in code quotes exists."""
    text = (ROOT / page).read_text(encoding="utf-8")
    folders = "bdhf|ablations|studies|tests|docs|asv_bench|findings|[.]ci"
    paths = set(re.findall(rf"`((?:{folders})/[\w./]+)`", text))
    tails = set(re.findall(r"`([\w./]+[.](?:py|j2))`", text))
    missing = {path for path in paths if not (ROOT / path).exists()}
    missing |= {
        tail for tail in tails - paths if not any(path.endswith(f"/{tail}") for path in FILES)
    }

    assert missing <= EXAMPLES
