"""What the pages say: commands that can be given, flags, links and messages that there are, files as the code writes them."""

import ast
import dataclasses
import functools
import re
from pathlib import Path

import pytest
import yaml

from datasets.box_tables import PLAIN, VINDR
from datasets.luna16 import COLUMNS as CANDIDATES
from datasets.manifest import COLUMNS as VOLUMES
from datasets.manifest import PICTURE_COLUMNS as PICTURES
from datasets.tables import PRIVATE
from engine import checkpoint, config, weights
from engine.config import parse
from engine.segmentation_report import COLUMNS as SEGMENTED
from tests import documented as pages
from tests.documented import PAGES, ROOT

# of launchers and other people's programs
FOREIGN = set("nproc_per_node nnodes node_rank master_addr master_port standalone max-restarts signal shm-size".split())
FOREIGN |= set("kill-on-bad-exit job-name nodes ntasks-per-node gpus-per-node cpus-per-task time requeue open-mode".split())
FOREIGN |= {"help", "local-rank", "flag", "logdir"}
named = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]


@functools.cache
def flags_of(path: Path) -> frozenset[str]:
    """Every flag of a script, as people type it."""
    name = pages.config_name(path)
    if path.parent.name == "benchmarks":  # they import what they compare with
        return frozenset(pages.fields_of(path))
    fields = dataclasses.fields(getattr(pages.module_of(path), name)) if name else ()
    return frozenset({field.name for field in fields} | {f"no_{field.name}" for field in fields if field.type is bool})


def scripts() -> list[Path]:
    found = [*ROOT.glob("*.py"), *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "vissl").rglob("*.py")]
    found += [ROOT / "datasets" / f"{name}.py" for name in ("make_samples", "luna16")]
    return [path for path in found if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", named)
def test_every_command_names_a_script_and_flags_that_there_are(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for words in pages.commands(page):
        name, behind = pages.target(words)
        if not name:  # `torchrun` alone
            continue
        if words[0] == "make":
            assert name in targets, words
            continue
        path = pages.source_of(name)
        assert path.is_file(), words
        given = {word[2:].split("=")[0] for word in behind if word.startswith("--")} - {"help"}
        if pages.config_name(path):
            assert given <= flags_of(path), words
        whole = words[0] != name and "--help" not in behind and not any("…" in word for word in behind)
        if whole and pages.config_name(path) and pages.uses_engine(path):  # its values, too, and files of constants
            parse(getattr(pages.module_of(path), pages.config_name(path)), behind)


def test_it_is_said_of_every_command_how_it_is_tried():
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", (ROOT / "docs/commands.md").read_text(encoding="utf-8"), re.M)
    told = [name.removeprefix("make ") for name, _ in rows]
    assert len(set(told)) == len(told) and not [row for row in rows if not re.search(r"tests/|by hand|the same|as `", row[1])]
    shown = {pages.target(words)[0] for page in PAGES for words in pages.commands(page) if words[0] in pages.PROGRAMS} - {""}
    assert shown <= set(told)
    for path in re.findall(r"`(tests/[^`]+)`", " ".join(row[1] for row in rows)):
        assert (ROOT / path).is_file(), path


def test_commands_are_found_and_wrong_ones_are_noticed(tmp_path):
    text = "Say `make demo` or `PYTHON=python3 make x`, `torchrun`, a `--flag`:\n\n"
    text += "```\n.venv/bin/python predict.py --a 'b c'  # so\n```\n"
    (tmp_path / "page.md").write_text(text + "\n```python\nmake = 1\n```\n", encoding="utf-8")
    found = list(pages.commands(tmp_path / "page.md"))
    assert found == [["python", "predict.py", "--a", "b c"], ["make", "demo"], ["make", "x"], ["torchrun"]]
    assert pages.target(found[0]) == ("predict.py", ["--a", "b c"])
    assert pages.target("torchrun --nproc_per_node=2 ssl_swav_2D.py --epochs 2".split())[0] == "ssl_swav_2D.py"
    assert pages.target("python -m torch.distributed.launch --nproc_per_node=2 a.py".split())[0] == "a.py"
    assert "data_path" in flags_of(ROOT / "ssl_swav_2D.py") and "nonsense" not in flags_of(ROOT / "ssl_swav_2D.py")


@pytest.mark.parametrize("page", named)
def test_every_flag_that_is_mentioned_is_one_of_some_script(page):
    known = FOREIGN.union(*(flags_of(path) for path in scripts()))
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?<![\w/-])--([a-zA-Z][\w-]*)", text):
        assert name in known or name.replace("-", "_") in known, f"--{name}"


@pytest.mark.parametrize("page", named)
def test_python_on_the_pages_is_python(page):
    for language, text in pages.fenced(page):
        if language == "python":
            ast.parse(text)


@pytest.mark.parametrize("page", [*named, pytest.param(ROOT / "CHANGELOG.md", id="CHANGELOG.md")])
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith(("http", "#")):
            assert (page.parent / link.split("#")[0]).is_file(), link


def test_the_site_leads_to_every_page():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    parts = [part if isinstance(part, list) else [{"": part}] for entry in site["nav"] for part in entry.values()]
    shown = sorted(page for part in parts for entry in part for page in entry.values())
    inside = [page.name for page in (ROOT / "docs").glob("*.md")]
    outside = ast.literal_eval(
        re.search(r"^PAGES = (.*)$", (ROOT / "docs/outside_pages.py").read_text(encoding="utf-8"), re.M)[1]
    )
    assert shown == sorted([*inside, *outside])
    assert {str(page.relative_to(ROOT)) for page in PAGES} <= {f"docs/{name}" for name in inside} | set(outside)


def texts_in(tree: ast.AST) -> list[str]:
    """All texts, with … where a value goes in."""
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    joined = [node.values for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    found += ["".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts) for parts in joined]
    return [" ".join(text.split()) for text in found]


def messages() -> list[str]:
    """What is shown on the page of what goes wrong."""
    return [line for language, text in pages.fenced(ROOT / "docs/faq.md") if language == "text" for line in text.splitlines()]


def told_by(line: str, templates: list[str]) -> bool:
    """Whether a message of the page is one of the code's, at least a third of it word for word."""
    for template in templates:
        parts = template.split("…")
        if max(parts, key=len) in line and sum(map(len, parts)) >= len(line) / 3:
            if re.search(".*?".join(map(re.escape, parts)), line):
                return True
    return False


def test_messages_that_the_page_explains_are_those_of_the_code():
    folders = [ROOT, *(ROOT / name for name in ("engine", "models", "losses", "datasets", "joint_ssl"))]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for folder in folders for path in folder.glob("*.py")]
    templates = [text for tree in trees for text in texts_in(tree) if len(text) > 15]
    assert len(messages()) > 20
    assert not [line for line in messages() if not told_by(line, templates)]
    assert not told_by("error: the memory is full; lower --batch_size or buy more", templates)


@pytest.mark.parametrize(
    "path, function",
    [("losses/collapse.py", "warnings"), ("engine/errors.py", "_in_words"), ("engine/soundness.py", "refuse_nonfinite")],
)
def test_what_the_guard_warns_of_and_what_the_machine_lacks_is_explained(path, function):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    (body,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function)
    docstring = " ".join((ast.get_docstring(body) or "").split())
    said = [text for text in texts_in(body) if len(text) > 100 and text != docstring]
    parts = [text for text in said if not any(text != other and text in other for other in said)]
    assert parts
    for text in parts:
        assert any(told_by(line, [text]) for line in messages()), text


def test_files_are_described_as_the_code_writes_them():
    page = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    for columns in (VOLUMES, PICTURES, PRIVATE, SEGMENTED, PLAIN, VINDR, CANDIDATES):
        assert ",".join(columns) in page
    assert f"`format_version` {config.FORMAT_VERSION} and every constant" in page
    assert f"`manifest.json` with `format_version` {checkpoint.FORMAT_VERSION}" in page
    assert f"| `format_version` | {weights.FORMAT_VERSION} |" in page
