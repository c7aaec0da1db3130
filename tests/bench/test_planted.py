"""Changes planted in a clone are found, and an unchanged commit is not flagged."""

import json
import re

import pytest

from tests.bench.clones import Clone
from tests.messages import naming

pytestmark = pytest.mark.slow

PRODUCT = r"time_product\((autoencoder|resnet), ggn, (full|per_layer), propagate, cpu\)"

COUNTED = r"solvers\.Counted"


alone = pytest.mark.alone


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone of the repository with the working tree as its last commit."""
    return Clone(tmp_path_factory.mktemp("clone") / "bdhf")


@alone
def test_a_second_forward_pass_in_the_product_is_caught(clone):
    """A product that runs the model again is slower in every pair of processes: exit code 1."""
    slow = clone.plant(
        "bdhf/optim/products/propagate/propagate.py",
        '        key = ("product", self.shapes)\n        return block_by_block(',
        '        key = ("product", self.shapes)\n'
        "        with torch.enable_grad():\n"
        "            self._objective.outputs(self.batch[0])\n"
        "        return block_by_block(",
    )

    done = clone.bench(slow, "--against", "main", "--bench", PRODUCT, "--json")

    assert done.returncode == 1, done.stderr
    comparison = json.loads(done.stdout)
    slower = [f for f in comparison["findings"] if f["verdict"] == "slower"]
    assert [f["benchmark"] for f in slower] == comparison["regressions"] != []
    assert all(len(f["ratios"]) == 7 for f in slower)
    assert all(min(r["middle"] for r in f["ratios"]) > 1.05 for f in slower)


def test_one_more_iteration_of_cg_is_caught(clone):
    """An additional iteration raises a count, exactly, in both commands that count."""
    more = clone.plant(
        "bdhf/optim/solvers/cg.py",
        "for iteration in range(1, self.max_iters + 1):",
        "for iteration in range(1, self.max_iters + 2):",
    )

    done = clone.bench(more, "--against", "main", "--bench", COUNTED, "--json")
    written = clone.bench("--counts", "--write", "--bench", COUNTED)
    clone.git("checkout", "--quiet", "--force", more, "--", "bdhf")
    expected = clone.bench("--counts", "--bench", COUNTED)
    clone.git("checkout", "--quiet", "--force", "main", "--", "bdhf")

    assert (done.returncode, written.returncode, expected.returncode) == (1, 0, 1)
    verdicts = {f["benchmark"]: f["verdict"] for f in json.loads(done.stdout)["findings"]}
    assert verdicts["solvers.Counted.track_iterations(cg full, cpu)"] == "more"
    assert re.search(naming("track_iterations(cg full, cpu):", 31, 30), expected.stdout)


@alone
def test_an_unchanged_commit_is_not_flagged(clone):
    """In ten comparisons of a commit with itself none finds a regression."""
    codes = [
        clone.bench("main", "--against", "main", "--quick", "--bench", PRODUCT).returncode
        for _ in range(10)
    ]

    assert codes == [0] * 10
