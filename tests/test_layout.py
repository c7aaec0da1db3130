"""The order of the package: small folders, a name for each thing, and the names that users have."""

import ast
import importlib
from collections import defaultdict
from pathlib import Path

import pytest

import bdhf

PACKAGE = Path(bdhf.__file__).parent

#: Most entries of a folder of Python.
MOST_ENTRIES = 16

#: Public names that several modules define, and why that is no second meaning.
ALLOWED = {
    "aten": "torch's own operators, under torch's own name",
    "compare": "the command `bdhf compare`, and the function that it prints",
    "main": "where a program begins: `bdhf`, and the process that measures a commit",
    "verify": "the command `bdhf verify`, and the function that it prints",
}

#: Dotted names that README, docs and CONTRIBUTING have used.
DOCUMENTED = (
    "bdhf.BlockHessianFree",
    "bdhf.CG",
    "bdhf.Constant",
    "bdhf.Full",
    "bdhf.GGN",
    "bdhf.L2",
    "bdhf.PerLayer",
    "bdhf.block_curvature",
    "bdhf.figures.curves",
    "bdhf.load",
    "bdhf.nn",
    "bdhf.nn.Initialisation",
    "bdhf.optim.ALGORITHM_VERSION",
    "bdhf.optim.Acceptance",
    "bdhf.optim.Damping",
    "bdhf.optim.L2",
    "bdhf.optim.Preconditioner",
    "bdhf.optim.Solver",
    "bdhf.optim.curvature.OutputCurvature",
    "bdhf.optim.estimate",
    "bdhf.optim.partitions.Partition",
    "bdhf.problems.Problem",
    "bdhf.problems.data.Data",
    "bdhf.recipes.martens2010",
    "bdhf.recipes.zhang2017",
    "bdhf.records.load_study",
)

FOLDERS = sorted({path.parent for path in PACKAGE.rglob("*.py")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_a_folder_is_seen_at_a_glance(folder):
    """No folder of Python has more than 16 entries."""
    entries = [path.name for path in folder.iterdir() if path.name != "__pycache__"]

    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_a_public_name_is_defined_once():
    """Two modules define one public name only where the list says why."""
    modules = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in defined(ast.parse(path.read_text(encoding="utf-8"))):
            modules[name].append(str(path.relative_to(PACKAGE)))
    homonyms = {name: where for name, where in modules.items() if len(where) > 1}

    assert {name: where for name, where in homonyms.items() if name not in ALLOWED} == {}
    assert ALLOWED.keys() <= homonyms.keys()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_name_of_the_documents_is_there(name):
    """What README, docs and CONTRIBUTING have named can be imported."""
    parts = name.split(".")
    target = bdhf
    for at, part in enumerate(parts[1:], start=2):
        if not hasattr(target, part):
            importlib.import_module(".".join(parts[:at]))
        target = getattr(target, part)

    assert target is not None


def defined(tree):
    """The public names that a module defines at its top level, each once."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}
