"""The source of a user's own part: its module, and the user's modules that it imports."""

from __future__ import annotations

import sys

import pytest

from bdhf.experiments.parts import user_modules, user_source
from bdhf.experiments.parts.user_source import sources
from bdhf.experiments.plan.user_code import own_code, own_names
from bdhf.records.provenance.environment import hashes_in_words, hashes_of_words
from tests.experiments.specs import cell


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that is searched for modules in this test only."""
    monkeypatch.setattr(user_modules._BESIDE, "folders", [str(tmp_path)])
    return tmp_path


def write(folder, **modules):
    """Write modules: `pkg__sub="..."` is `pkg/sub.py`. They fail if they are run."""
    for name, text in modules.items():
        file = folder / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(f"{text}\nraise AssertionError('this module must not be run')\n")


def init(folder, *packages):
    """Make folders packages."""
    for package in packages:
        (folder / package).mkdir(exist_ok=True, parents=True)
        (folder / package / "__init__.py").write_text("")


#: An import -> the modules of the part.
IMPORTS = {
    "nothing": ("x = 1", []),
    "a module in the folder": ("import osrc_b", ["osrc_b"]),
    "a name of it": ("from osrc_b import anything", ["osrc_b"]),
    "within a function": ("def f():\n    import osrc_b", ["osrc_b"]),
    "under a condition": ("if False:\n    import osrc_b", ["osrc_b"]),
    "where it may be missing": ("try:\n    import osrc_b\nexcept ImportError:\n    pass",
                                ["osrc_b"]),
    "what imports another": ("import osrc_c", ["osrc_b", "osrc_c"]),
    "a circle": ("import osrc_d", ["osrc_d", "osrc_e"]),
    "a package": ("import osrc_p", ["osrc_p"]),
    "a module of a package": ("from osrc_p import inner", ["osrc_p", "osrc_p.inner",
                                                         "osrc_p.near"]),
    "by its full name": ("import osrc_p.inner as x", ["osrc_p", "osrc_p.inner", "osrc_p.near"]),
    "a folder without __init__": ("import osrc_n.inner", ["osrc_n.inner"]),
    "a folder without it in a package": ("import osrc_p.low.part", ["osrc_p", "osrc_p.low.part"]),
    "a folder without it in another": ("from osrc_n.low import part", ["osrc_n.low.part"]),
    "one that cannot be parsed": ("import osrc_torn", ["osrc_torn"]),
    "one that is not there": ("import osrc_gone", []),
    "above the top": ("from .. import osrc_b", []),
    "Python's own": ("import random, os.path, sys", []),
    "installed packages": ("import torch, numpy.linalg\nfrom pandas import DataFrame", []),
    "this package": ("from bdhf.problems import MLP", []),
}  # fmt: skip


@pytest.mark.parametrize("how", IMPORTS)
def test_a_part_is_made_of_what_it_imports_of_the_users_own(folder, how):
    """Nothing is run; packages with a recorded version are left out."""
    text, expected = IMPORTS[how]
    write(
        folder, osrc_a=text, osrc_b="", osrc_c="import osrc_b", osrc_d="import osrc_e",
        osrc_e="import osrc_d, osrc_a", osrc_p__inner="from . import near, name",
        osrc_p__near="from .inner import x", osrc_p__other="", osrc_n__inner="",
        osrc_p__low__part="", osrc_n__low__part="",
    )  # fmt: skip
    init(folder, "osrc_p")
    (folder / "osrc_torn.py").write_text("def (\n")
    (folder / "random.py").write_text("raise AssertionError")

    modules = sources("osrc_a:Part")

    assert sorted(modules) == ["osrc_a", *expected]
    assert all(source.file.is_relative_to(folder) for source in modules.values())
    assert not [name for name in sys.modules if name.startswith("osrc_")]


def test_a_part_in_a_package_is_made_of_its_packages_too(folder):
    """They run before it, with their imports; relative names may have any depth."""
    init(folder, "osrc_q", "osrc_q/deep")
    write(folder, osrc_q__deep__part="from ..lower import x\nfrom .side import y",
          osrc_q__lower="", osrc_q__deep__side="from ... import osrc_b", osrc_b="")  # fmt: skip

    names = ["osrc_q", "osrc_q.deep", "osrc_q.deep.part", "osrc_q.deep.side", "osrc_q.lower"]
    assert sorted(sources("osrc_q.deep.part:Part")) == names


def test_of_an_installed_package_its_own_modules_count_and_no_others(tmp_path, monkeypatch):
    """The other packages in the folder have recorded versions."""
    home = tmp_path / "site-packages"
    init(home, "osrc_mine", "osrc_other")
    write(home, osrc_mine__part="from osrc_mine import more\nimport osrc_other, osrc_single",
          osrc_mine__more="", osrc_single="")  # fmt: skip
    monkeypatch.syspath_prepend(home)

    assert sorted(sources("osrc_mine.part:Part")) == [
        "osrc_mine", "osrc_mine.more", "osrc_mine.part"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["os:system", "bdhf.problems:MLP", "torch.optim:SGD", "osrc_no:X"])
def test_what_is_not_the_users_own_has_no_source(folder, name):
    """Packages with a recorded version, and missing modules."""
    assert sources(name) == {}


@pytest.mark.parametrize("file", ["osrc_a.py", "osrc_b.py"])
@pytest.mark.parametrize("change", [b"x = 2\n", b"x = 1\n# a word\n", b""])
def test_any_change_of_a_file_is_another_hash(folder, file, change):
    """Only of that module; line endings do not count."""
    for name in ("osrc_a.py", "osrc_b.py"):
        (folder / name).write_bytes(b"import osrc_b\nx = 1\n")
    before = sources("osrc_a:X")

    (folder / file).write_bytes(b"import osrc_b\r\nx = 1\r\n")
    same = sources("osrc_a:X")
    (folder / file).write_bytes(b"import osrc_b\n" + change)
    after = sources("osrc_a:X")

    assert same == before
    assert {name for name in before if after[name] != before[name]} == {file.removesuffix(".py")}


def test_hashes_are_reported_in_words_and_read_again(folder):
    """In the form of env.json."""
    hashes = {"lab.parts": "0123", "lab": "4567"}

    assert hashes_of_words(hashes_in_words(hashes)) == hashes
    assert hashes_of_words("") == {}


def test_own_parts_of_a_run_are_found_wherever_they_stand():
    """The problem, an optimizer, a part, a nested part; not a value with a colon."""
    run = cell("full_hf").run
    blend = {"type": "blend", "partition": {"type": "osrc_a:P", "name": "no:part"}, "alpha": 0.5}
    own = run.model_copy(
        update={
            "problem": {"type": "osrc_b:Problem"},
            "optimizer": {**run.optimizer, "partition": blend},
        }
    )

    assert own_names(run) == ()
    assert own_code(run) == {}
    assert own_names(own) == ("osrc_a:P", "osrc_b:Problem")


def test_recorded_is_what_was_imported_and_not_what_lies_there_later(folder):
    """A worker imports a module once, and the file may change while the worker runs."""
    write(folder, osrc_kept="x = 1")
    run = cell("full_hf").run
    run = run.model_copy(update={"problem": {"type": "osrc_kept:Problem"}})
    user_source.remember("osrc_kept")
    before = own_code(run)
    write(folder, osrc_kept="x = 2")

    assert own_code(run) == before
    assert (
        hashes_in_words({"osrc_kept": sources("osrc_kept:X")["osrc_kept"].digest})
        not in before.values()
    )
