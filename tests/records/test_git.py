"""The output of git depends on no settings, and no program that they name is run."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bdhf.bench.checkout import Checkout
from bdhf.experiments.run import provenance
from bdhf.records.provenance.git import diff, git, git_environment
from tests.bench.clones import git as plainly

TEXT = "".join(f"line {i}\n" for i in range(12))


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A repository with two files."""
    home = tmp_path_factory.mktemp("committed")
    folder = home / "repository"
    (folder / "bdhf").mkdir(parents=True)
    plainly(home, "init", "--quiet", "repository")
    for name in ("notes.txt", "bdhf/code.txt"):
        (folder / name).write_text(TEXT)
    plainly(folder, "add", "--all")
    plainly(folder, "commit", "--quiet", "--message", "first")
    return folder


@pytest.fixture
def repository(committed, tmp_path, monkeypatch):
    """A copy with one changed file as working directory, for a user without settings."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    folder = shutil.copytree(committed, tmp_path / "repository", symlinks=True)
    (folder / "notes.txt").write_text(TEXT + "more\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def program(tmp_path):
    """A harmless program that creates a mark when it is run, and copies its input."""
    mark, file = tmp_path / "mark", tmp_path / "program"
    file.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(mark))}\ncat 2>/dev/null\nexit 0\n")
    file.chmod(0o755)
    return file, mark


def recorded():
    """The record of the repository in a run, without the cache."""
    return provenance._repository.__wrapped__()


#: Setting -> the .gitattributes that make it effective.
PROGRAMS = {
    "diff.external": "",
    "diff.own.command": "*.txt diff=own\n",
    "diff.own.textconv": "*.txt diff=own\n",
    "core.fsmonitor": "",
    "filter.own.clean": "*.txt filter=own\n",
    "filter.a=b.c.clean": "*.txt filter=a=b.c\n",
}


@pytest.mark.parametrize("setting", PROGRAMS)
def test_no_program_is_run_that_a_repository_names(repository, program, setting):
    """The mark does not exist, and the changes are correct."""
    (file, mark), before = program, recorded()
    plainly(repository, "config", setting, str(file))
    (repository / ".git" / "info").mkdir(exist_ok=True)
    (repository / ".git" / "info" / "attributes").write_text(PROGRAMS[setting])

    after = recorded()
    changed = Checkout(repository).changed(Checkout(repository).commit("HEAD"))

    assert not mark.exists()
    assert after == before
    assert len(after["dirty"]) == 12
    assert changed == []


@pytest.mark.parametrize("name", ["post-index-change", "reference-transaction"])
def test_no_hook_is_run_and_no_index_is_written(repository, program, name):
    """Another git may be running in the repository."""
    (file, mark), index = program, repository / ".git" / "index"
    (repository / ".git" / "hooks").mkdir(exist_ok=True)
    (repository / ".git" / "hooks" / name).symlink_to(file)
    os.utime(repository / "bdhf" / "code.txt", (1, 1))  # git would record this in its index
    before = index.read_bytes()

    recorded()
    Checkout(repository).changed(Checkout(repository).commit("HEAD"))

    assert not mark.exists()
    assert index.read_bytes() == before


@pytest.mark.parametrize(
    "setting",
    [
        "diff.noprefix=true", "diff.mnemonicPrefix=true", "color.ui=always", "color.diff=always",
        "diff.context=0", "diff.algorithm=patience", "diff.relative=true", "diff.renames=false",
    ],
)  # fmt: skip
def test_the_hash_of_changes_depends_on_no_users_settings(repository, setting, monkeypatch):
    """The same changes have the same hash for every user and from every folder."""
    before = recorded()
    plainly(repository, "config", *setting.split("="))
    monkeypatch.chdir(repository / "bdhf")

    assert recorded() == before


@pytest.mark.parametrize("variable", ["GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"])
def test_nor_on_variables(repository, program, variable, monkeypatch):
    """Those that name a program, or options."""
    before = recorded()
    monkeypatch.setenv(variable, str(program[0]) if "EXTERNAL" in variable else "--unified=0")

    assert recorded() == before
    assert not program[1].exists()


def test_filters_of_a_users_own_settings_are_kept(repository, program, tmp_path, monkeypatch):
    """Without them, unchanged files that are stored elsewhere would look changed."""
    plainly(repository, "checkout", "--quiet", "notes.txt")
    settings = tmp_path / "settings"
    settings.write_text(f'[filter "kept"]\n\tclean = {program[0]}\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    (repository / ".git" / "info" / "attributes").write_text("*.txt filter=kept\n")
    os.utime(repository / "notes.txt", (1, 1))

    assert recorded()["dirty"] == ""
    assert program[1].exists()


def test_settings_in_variables_are_kept(repository, monkeypatch):
    """Those of the user come first, such as `safe.directory` on a build machine."""
    for name, value in (("COUNT", "1"), ("KEY_0", "user.name"), ("VALUE_0", "somebody")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)

    assert git("config", "user.name") == b"somebody\n"
    assert int(git_environment(repository)["GIT_CONFIG_COUNT"]) > 1


def test_a_changed_file_in_any_encoding_has_a_hash(repository):
    """What git prints is bytes."""
    (repository / "notes.txt").write_bytes(b"caf\xe9\n")

    assert len(recorded()["dirty"]) == 12


def test_changes_that_git_cannot_read_are_not_none(repository):
    """A repository without one of its trees: its commit is known, its changes are not."""
    tree = git("rev-parse", "HEAD^{tree}").decode().strip()
    (repository / ".git" / "objects" / tree[:2] / tree[2:]).unlink()

    with pytest.raises(subprocess.CalledProcessError):
        diff("HEAD")
    assert recorded()["dirty"] == provenance.UNKNOWN_COMMIT
    assert len(recorded()["commit"]) == 40


def test_outside_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    """Nor any change."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)

    assert recorded() == {"commit": "", "dirty": ""}
    assert Path.cwd() == tmp_path
