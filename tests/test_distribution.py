"""What is installed and shipped: versions agree, dependencies are used, and the sdist."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: Distribution -> the module that uses it, where that has another name.
MODULES = {"cmaes": "optuna"}  # its sampler of that name


def test_ci_installs_the_torch_of_the_expected_counts():
    """CI, tox, asv and the counts agree on one version, of which there is a CPU build."""
    pins = {
        "CI": re.search(r"^torch==(\S+)", text(".ci/constraints.txt"), re.MULTILINE),
        "tox": re.search(r"torch==(\S+)", text("tox.ini")),
        "asv": re.search(r'"torch": \["([^"]+)"\]', text("asv.conf.json")),
    }
    (counted,) = json.loads(text("asv_bench/expected_counts.json"))

    assert {name: pin and pin[1] for name, pin in pins.items()} == dict.fromkeys(pins, counted)
    assert 'export PIP_CONSTRAINT="$PWD/.ci/constraints.txt"' in text(".ci/run")


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_every_dependency_is_imported(requirement):
    """What nothing imports is not installed."""
    name = re.match(r"[\w.-]+", requirement)[0]
    module = MODULES.get(name, name)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "bdhf").rglob("*.py"))

    assert re.search(rf"(import|from) {module}\b|import_module\(\"{module}\b", sources)


def test_asv_installs_the_dependencies():
    """The environments of commits have all that the package needs, and nothing else."""
    matrix = json.loads(re.sub(r"^\s*//.*$", "", text("asv.conf.json"), flags=re.MULTILINE))
    names = {re.match(r"[\w.-]+", entry)[0].replace(".", "-") for entry in PROJECT["dependencies"]}

    assert set(matrix["matrix"]["req"]) == names


def test_a_source_distribution_is_the_package_without_its_tests(tmp_path):
    """Tests read the whole repository, and setuptools would ship some, without their helpers."""
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("bdhf", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"

    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)

    (made,) = (tmp_path / "dist").iterdir()
    with tarfile.open(made) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    package = {str(path.relative_to(tmp_path)) for path in (tmp_path / "bdhf").rglob("*.py")}
    assert package < names
    assert not [name for name in names if name.startswith("tests")]


@pytest.mark.slow
def test_the_rivals_run_without_torchvision():
    """PyPI's, which they require, cannot be imported beside a CPU build of torch: they never do."""
    script = (
        "import sys, warnings; warnings.simplefilter('ignore'); sys.modules['torchvision'] = None;"
        "import curvlinops, backpack.extensions, backpack.hessianfree.ggnvp"
    )

    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def text(name):
    """The text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")
