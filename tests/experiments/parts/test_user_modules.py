"""Modules next to a spec: only those that it names are imported."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bdhf import records
from bdhf.cli import app
from bdhf.experiments.audit.replan import unplanned
from bdhf.experiments.parts import user_modules
from bdhf.experiments.parts.user_modules import allow, look_in
from bdhf.experiments.parts.user_parts import own_part
from bdhf.experiments.spec.load import load_spec
from bdhf.records.columns import TABLES
from tests.experiments.specs import SMALL, changed

PART = """
from dataclasses import dataclass
import {helper}


@dataclass(frozen=True)
class Chunks:
    size: int = 5000

    def __call__(self, layout):
        import {lazy}
        return {lazy}.split(layout, self.size)
"""

SPLIT = """
import torch


def split(layout, size):
    return [chunk[None] for chunk in torch.arange(layout.size).split(size)]
"""


@pytest.fixture
def finder(monkeypatch):
    """The finder as in a new process; the imports of a test are undone."""
    for name, empty in (("folders", []), ("named", set()), ("_served", set())):
        monkeypatch.setattr(user_modules._BESIDE, name, empty)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("bsd_"):
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path, finder):
    """A folder with an own part, the modules that it imports, and an unrelated one."""
    home = tmp_path / "beside"
    home.mkdir()
    (home / "bsd_part.py").write_text(PART.format(helper="bsd_helper", lazy="bsd_lazy"))
    (home / "bsd_helper.py").write_text("import bsd_deeper")
    (home / "bsd_deeper.py").write_text("")
    (home / "bsd_lazy.py").write_text(SPLIT)
    (home / "bsd_stray.py").write_text("")
    return home


def is_there(name):
    """Whether an ordinary import finds a module."""
    return importlib.util.find_spec(name) is not None


def test_a_module_is_found_that_is_named_and_what_it_imports(folder):
    """Direct, indirect and late imports work, but only from the part itself."""
    look_in([str(folder)])
    before = [is_there(name) for name in ("bsd_part", "bsd_helper", "bsd_lazy", "bsd_stray")]

    part = own_part("bsd_part:Chunks")()
    tried = [is_there(name) for name in ("bsd_lazy", "bsd_stray")]
    part(type("Layout", (), {"size": 8}))

    assert before == [False] * 4
    assert tried == [False, False]
    assert {"bsd_part", "bsd_helper", "bsd_deeper", "bsd_lazy"} <= set(sys.modules)


@pytest.mark.parametrize("way", ["import bsd_stray", "from importlib import import_module as f\n"
                                 "f('bsd_stray')", "import importlib.util as u\n"
                                 "u.find_spec('bsd_stray') or 1 / 0"])  # fmt: skip
def test_what_another_package_tries_to_import_is_not_there(folder, tmp_path, monkeypatch, way):
    """Also if a user's module imports that package, and for every way to import."""
    library = tmp_path / "library"
    library.mkdir()
    tried = "\n    ".join(way.splitlines())
    text = f"try:\n    {tried}\n    there = True\nexcept (ImportError, ZeroDivisionError):\n"
    (library / "bsd_library.py").write_text(text + "    there = False\n")
    monkeypatch.syspath_prepend(library)
    (folder / "bsd_helper.py").write_text("import bsd_library")
    (folder / "bsd_lazy.py").write_text(f"{way}\nthere = True")
    look_in([str(folder)])

    own_part("bsd_part:Chunks")
    allow("bsd_lazy")

    assert sys.modules["bsd_library"].there is False
    assert importlib.import_module("bsd_lazy").there  # in the folder itself


def test_an_installed_module_comes_first(folder, tmp_path, monkeypatch):
    """For a name in the spec and for imports of a user's module, also of the standard library."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "bsd_lazy.py").write_text("where = 'library'")
    monkeypatch.syspath_prepend(library)
    (folder / "dis.py").write_text("raise AssertionError")
    (folder / "bsd_helper.py").write_text("import dis, bsd_lazy")
    monkeypatch.delitem(sys.modules, "dis")
    look_in([str(folder)])

    own_part("bsd_part:Chunks")

    assert sys.modules["bsd_lazy"].where == "library"
    assert Path(sys.modules["dis"].__file__).parent != folder


def test_a_folder_of_the_name_elsewhere_hides_no_module(folder, tmp_path, monkeypatch):
    """Python makes a namespace package of any folder if it finds nothing else."""
    (tmp_path / "library" / "bsd_part").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "library")
    look_in([str(folder)])

    assert own_part("bsd_part:Chunks")().size == 5000


@pytest.mark.parametrize("has_init", [True, False])
def test_a_part_may_lie_in_a_package(folder, has_init):
    """With or without `__init__.py`, and after caches are invalidated."""
    (folder / "bsd_package").mkdir()
    (folder / "bsd_package" / "part.py").write_text("def chunks(layout):\n    ...\n")
    (folder / "bsd_package" / "more.py").write_text("")
    if has_init:
        (folder / "bsd_package" / "__init__.py").write_text("from . import more")
    look_in([str(folder)])

    own_part("bsd_package.part:chunks")
    importlib.invalidate_caches()

    assert importlib.import_module("bsd_package.more").__package__ == "bsd_package"


def test_an_instance_of_an_own_class_is_pickled_and_read_again(folder):
    """In a process that has not imported its module yet."""
    look_in([str(folder)])
    content = pickle.dumps(own_part("bsd_part:Chunks")(size=7))
    del sys.modules["bsd_part"]

    assert pickle.loads(content).size == 7


def test_a_spec_leaves_the_path_of_modules_as_it_is(folder):
    """With or without own parts, `sys.path` stays the same."""
    before = list(sys.path)
    (folder / "plain.yaml").write_text(SMALL)
    (folder / "own.yaml").write_text(changed(("partition: full", "partition: bsd_part:Chunks")))

    load_spec(folder / "plain.yaml")
    named = set(user_modules._BESIDE.named)
    load_spec(folder / "own.yaml")

    assert sys.path == before
    assert named == set()
    assert not is_there("bsd_stray")


#: Names that libraries try to import and that are not installed here.
OPTIONAL = [name for name in ("gmpy2", "flint", "triton", "torchdistx", "dill", "tree", "pytz")
            if importlib.util.find_spec(name) is None]  # fmt: skip

#: Modules of the standard library that a process imports when it starts another.
OWN_LIBRARY = ("random", "struct", "socket", "dis")

TINY = (("updates: 6", "updates: 2"), ("count: 2", "count: 1"),
        ("partition: full", "partition: bsd_part:Chunks"))  # fmt: skip


def spread(folder, names):
    """Write harmless modules that leave a mark when they are imported."""
    for name in names:
        text = f"open({str(folder / 'marks')!r}, 'a').write('{name} ')\nraise ImportError('mark')\n"
        (folder / f"{name}.py").write_text(text)


def bdhf(folder, *words):
    """Run Python with these arguments in a folder; its output."""
    root = str(Path(user_modules.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ran(folder, *names):
    """Run the small ablation with its part, in a folder with modules of these names."""
    (folder / "spec.yaml").write_text(changed(*TINY))
    spread(folder, names)
    bdhf(folder, "-P", "-m", "bdhf.cli", "run", "spec.yaml", "--out", "out", "--workers", "1")


@pytest.mark.slow
def test_no_command_imports_what_merely_lies_there(folder, monkeypatch):
    """Neither `run` and its workers nor a new plan of a report; all import the named part."""
    assert OPTIONAL
    monkeypatch.chdir(folder)

    ran(folder, *OPTIONAL, *OWN_LIBRARY)
    others = unplanned(records.load("out"), folder / "report.html")

    assert others == ()
    assert not (folder / "marks").exists()
    envs = [json.loads(path.read_text()) for path in folder.glob("out/runs/*/env.json")]
    codes = [env["own_code"].split()[::2] for env in envs if "own_code" in env]
    assert codes == [["bsd_deeper", "bsd_helper", "bsd_lazy", "bsd_part"]]
    assert len(envs) == 3
    assert sorted(next(env for env in envs if "own_code" in env)) == sorted(TABLES["env.json"])


@pytest.mark.long
def test_nor_does_one_that_python_starts_as_a_module(folder):
    """With `-m`, Python puts the working directory first."""
    (folder / "spec.yaml").write_text(changed(*TINY))
    spread(folder, OPTIONAL)

    assert "full_hf" in bdhf(folder, "-m", "bdhf.cli", "plan", "spec.yaml", "--probe")
    assert not (folder / "marks").exists()


@pytest.mark.long
def test_nor_does_verify_that_makes_every_run_again(folder, monkeypatch):
    """In the folder of the report, among modules named like the standard library."""
    ran(folder, *OPTIONAL, *OWN_LIBRARY)
    monkeypatch.chdir(folder)

    done = CliRunner().invoke(app, ["verify", "out/report.html", "--rerun", "9"])

    assert done.exit_code == 0, done.output
    assert not (folder / "marks").exists()


STUDY = """\
schema: 1
name: own
ablation: spec.yaml
spaces: {full_hf: {lr: {linear: [0.1, 1.0]}}}
trials: 1
seeds: {count: 1, base: 100}
held_out: false
"""


@pytest.mark.long
def test_nor_does_a_study_and_its_workers(folder):
    """They import the part next to the ablation that they tune."""
    (folder / "spec.yaml").write_text(changed(*TINY, ("stop: at_budget", "stop: at_target")))
    (folder / "study.yaml").write_text(STUDY)
    spread(folder, (*OPTIONAL, *OWN_LIBRARY))

    said = bdhf(folder, "-P", "-m", "bdhf.cli", "tune", "study.yaml", "--out", "out")

    assert "full_hf 1/1: " in said
    assert not (folder / "marks").exists()
