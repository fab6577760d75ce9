"""The promises of docs/design.md that concern the tree as a whole."""

import ast
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "datasets", "losses", "engine")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_imports_run_one_way():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    for package in PACKAGES:
        for path in (ROOT / package).glob("*.py"):
            assert not imported(path) & (set(PACKAGES) | scripts), path
    for path in (ROOT / "joint_ssl").glob("*.py"):  # installed, it finds the others inside itself
        assert not imported(path) & (set(PACKAGES) | scripts | {"joint_ssl"}), path
    for path in (ROOT / "vissl").rglob("*.py"):
        assert not imported(path) & scripts, path
    allowed = {"mask_swav_3D": {"mask_deepcluster_3D"}, "run_pipeline": {"finetune_segmentation"}}
    for path in ROOT.glob("*.py"):
        assert not (imported(path) & scripts) - allowed.get(path.stem, set()), path


def test_requirements_are_those_of_the_lock():
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            name, version = line.split(" ;")[0].strip().split("==")
            assert f'name = "{name.split("[")[0]}"\nversion = "{version}"' in lock, line
    environment = yaml.safe_load((ROOT / "env.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "joint-ssl" and {"pip": ["-r requirements.txt"]} in environment["dependencies"]


def test_samples_in_git_are_at_most_10_megabytes():
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "training_data_2D", "training_data_3D"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    files = [ROOT / name for name in tracked.stdout.split("\0") if name]
    assert sum(path.stat().st_size for path in files) < 10e6


def test_folders_of_tests_are_packages_so_that_files_of_two_may_share_a_name():
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
