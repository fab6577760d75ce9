"""`pip install .` brings one package, `joint_ssl`; the environments that the files of the checkout ask for agree."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from joint_ssl import load_model
from tests import released_files as released

ROOT = Path(__file__).parents[1]
LARGE = ("runs", "training_data", "weights", "build", "site")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources() -> dict[str, Path]:
    """The file of each module of the package, as `package-dir` maps them."""
    folders = PROJECT["tool"]["setuptools"]["package-dir"]
    modules = {name: folders[name.rpartition(".")[0]] for name in PROJECT["tool"]["setuptools"]["py-modules"]}
    files = {name: ROOT / folder / f"{name.rpartition('.')[2]}.py" for name, folder in modules.items()}
    return files | {package: ROOT / folder / "__init__.py" for package, folder in folders.items()}


def imports_at_its_top(module: str, path: Path) -> tuple[set[str], set[str]]:
    """Modules of the package, and names from elsewhere, that a module needs to be imported."""
    ours, others = set(), set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            ours |= {f"{package}.{node.module}"} if node.module else {f"{package}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
    return ours, others


def test_the_package_has_the_modules_that_it_needs_and_no_others():
    needed, others, waiting = {"joint_ssl.datasets", "joint_ssl.models"}, set(), ["joint_ssl"]
    files = sources()
    while waiting:
        module = waiting.pop()
        assert module in files, f"{module} is needed; name it under py-modules in pyproject.toml"
        needed.add(module)
        ours, elsewhere = imports_at_its_top(module, files[module])
        waiting += ours - needed
        others |= elsewhere
    assert needed == set(files)
    known = {"PIL" if (name := Requirement(line).name) == "Pillow" else name for line in PROJECT["project"]["dependencies"]}
    assert others - set(sys.stdlib_module_names) == known


def test_the_packages_dependencies_allow_what_the_scripts_are_pinned_to():
    pinned = {(one := Requirement(line)).name: one for line in PROJECT["dependency-groups"]["scripts"]}
    for line in PROJECT["project"]["dependencies"]:
        version = next(iter(pinned[Requirement(line).name].specifier)).version
        assert Requirement(line).specifier.contains(version), line


def test_conda_and_make_install_the_same_packages():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = [Requirement(line) for line in lines if line and not line.startswith((" ", "#"))]
    versions = {one.name.lower(): next(iter(one.specifier)).version for one in named}
    groups = PROJECT["dependency-groups"]
    for line in groups["scripts"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(versions[wanted.name.lower()]), line
    for line in groups["dev"] + groups["docs"]:
        assert Requirement(line).name.lower() not in versions, line
    assert PROJECT["tool"]["uv"] == {"package": False, "default-groups": ["scripts", "dev", "oracles"]}


def test_condas_python_is_one_that_the_project_takes():
    environment = yaml.safe_load((ROOT / "env.yml").read_text(encoding="utf-8"))
    python = next(line for line in environment["dependencies"] if str(line).startswith("python="))
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(python.removeprefix("python="))


# somewhere else, beside another `datasets`: loads the file and writes the embeddings
CHILD = """
import sys
import datasets
import numpy as np
import joint_ssl
assert datasets.OWNER == "somebody else" and "models" not in sys.modules
weights, pixels, output = sys.argv[1:]
model = joint_ssl.load_model(weights)
assert joint_ssl.__file__.startswith(sys.path[1])
try:
    joint_ssl.load_model("none.pth")
except joint_ssl.WeightsError as error:
    assert "none.pth" in str(error)
assert np.array_equal(joint_ssl.read_volume(pixels), np.load(pixels).transpose(2, 0, 1))
pixels = np.load(pixels)
np.savez(output, slices=model.encode_slices(pixels).numpy(), volumes=model.encode_volumes(pixels[None]).numpy())
"""


@pytest.mark.slow
def test_an_installed_package_embeds_as_the_checkout_does_beside_another_package_called_datasets(tmp_path):
    copy, site = tmp_path / "checkout", tmp_path / "site"  # what setuptools leaves beside its sources stays out of ours
    shutil.copytree(ROOT, copy, ignore=lambda _, names: [n for n in names if n.startswith((".", *LARGE))])
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
    done = subprocess.run([*pip, "--no-build-isolation", "--target", site, copy], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in site.iterdir()} == {"joint_ssl", "joint_ssl-0.1.0.dist-info"}
    assert {path.name for path in (site / "joint_ssl").iterdir() if path.is_dir()} - {"__pycache__"} == {"datasets", "models"}

    (site / "datasets").mkdir()
    (site / "datasets/__init__.py").write_text("OWNER = 'somebody else'\n", encoding="utf-8")
    released.write(tmp_path)
    pixels = np.random.default_rng(0).normal(size=(16, 30, 28)).astype(np.float32)
    np.save(tmp_path / "pixels.npy", pixels)
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    words = ["child.py", "swav3D.pth", "pixels.npy", "embedded.npz"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    model = load_model(str(tmp_path / "swav3D.pth"))
    with np.load(tmp_path / "embedded.npz") as embedded:
        assert torch.equal(torch.from_numpy(embedded["slices"]), model.encode_slices(pixels))
        assert torch.equal(torch.from_numpy(embedded["volumes"]), model.encode_volumes(pixels[None]))
