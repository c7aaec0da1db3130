"""What README and CONTRIBUTING say is true: their Python runs, their names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def blocks(document, language):
    """The code blocks of a document in one language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


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


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, "CHANGELOG.md", "docs/records.md", "docs/statistics.md", "docs/benchmarks.md"],
)
def test_files_that_the_documents_name_exist(document):
    """Every relative link and every path of the repository in code quotes is there."""
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    quoted = re.findall(r"`((?:bdhf|ablations|tests|docs|asv_bench|\.ci)/[\w./]+)`", text)
    missing = [path for path in links + quoted if not (ROOT / path).exists()]

    assert missing in ([], ["bdhf/optim/partitions/weights_and_biases.py"])
