"""The order of the code: small folders and files, names that say what they hold, names of users."""

import ast
import importlib
from collections import defaultdict
from pathlib import Path

import pytest

import bdhf

PACKAGE = Path(bdhf.__file__).parent

#: Most entries of a folder of Python, and most lines of a file in it.
MOST_ENTRIES = 16
MOST_LINES = 250

#: Names that hold for anything, so they say nothing.
VAGUE = {"found", "given", "known", "mine", "one", "place"}

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
ROOT = PACKAGE.parent
SOURCES = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for folder in ("bdhf", "asv_bench", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_a_folder_is_seen_at_a_glance(folder):
    """No folder of Python has more than 16 entries."""
    entries = [path.name for path in folder.iterdir() if path.name != "__pycache__"]

    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_a_file_is_read_in_one_go():
    """No file of the package has more than 250 lines."""
    lengths = {
        str(path): text.count("\n") for path, text in SOURCES.items() if path.parts[0] == "bdhf"
    }

    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_a_name_says_what_it_holds():
    """No variable, parameter, function or class has one of the vague names."""
    vague = [
        f"{path}:{line}: {name}"
        for path, text in SOURCES.items()
        for line, name in bindings(ast.parse(text))
        if name in VAGUE
    ]

    assert vague == []


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


def bindings(tree):
    """The line and the name of everything that a module binds, in all of its scopes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.alias(asname=str(name)) | ast.MatchAs(name=str(name)):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


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
