"""What the pages of README.md and docs/ say: commands, flags, links, as tests read them."""

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("benchmarks", "vissl", "weights")]
PARSERS = ("parse", "launch", "cli")  # what a script hands its configuration class to
PROGRAMS = ("python", "torchrun", "make")
PLACES = (".venv/bin/", "./")  # before the name of a program or script


def fenced(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def spans(page: Path) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M))


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command, from the program on (python, torchrun, make, or a script by its name)."""
    for language, text in fenced(page):
        if language in ("", "bash"):
            for line in text.replace("\\\n", " ").splitlines():
                yield from _words(line, must_begin=False)
    for span in spans(page):
        yield from _words(span, must_begin=True)


def _words(line: str, must_begin: bool) -> Iterator[list[str]]:
    if not re.search(r"(python|torchrun|make|\w\.py)\b", line):
        return
    try:
        words = [_plain(word) for word in shlex.split(line, comments=True)]
    except ValueError:  # an apostrophe: no command
        return
    while words and "=" in words[0] and not words[0].startswith("-"):  # PYTHON=python3.12 make demo
        words = words[1:]
    programs = [place for place, word in enumerate(words) if word in PROGRAMS]
    if words and (words[0] in PROGRAMS or (must_begin and words[0].endswith(".py") and words[1:])):
        yield words
    elif programs and words[0] == "srun":
        yield words[programs[0] :]


def _plain(word: str) -> str:
    for place in PLACES:
        word = word.removeprefix(place)
    return word


def target(words: list[str]) -> tuple[str, list[str]]:
    """The script (its path), module (-m) or make target of a command, and the words behind it; "" for the launcher alone."""
    for place, word in enumerate(words):
        if words[0] == "make" and place and "=" not in word:
            return word, words[place + 1 :]
        if word == "-m" and words[0] == "python" and not words[place + 1].startswith("torch."):
            return words[place + 1], words[place + 2 :]
        if word.endswith(".py"):
            return word, words[place + 1 :]
    return "", []


def source_of(name: str) -> Path:
    """The file of a script or of a module."""
    return ROOT / (name if name.endswith(".py") else name.replace(".", "/") + ".py")


def config_name(path: Path) -> str:
    """The name of the class that holds a script's flags; "" where it takes its words in another way."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Name):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if called in PARSERS and node.args[0].id[0].isupper():
                return node.args[0].id
    return ""


def uses_engine(path: Path) -> bool:
    """Whether a script's flags are read by `engine.config.parse`, and not by tyro alone."""
    return "tyro.cli(" not in path.read_text(encoding="utf-8")


def module_of(path: Path):
    """A script as a module."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if path.parent == ROOT or path.parent.name == "datasets":
        return importlib.import_module(name)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def fields_of(path: Path) -> set[str]:
    """The fields of the class that holds a script's flags, as they stand in its file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == config_name(path):
            return {field.target.id for field in node.body if isinstance(field, ast.AnnAssign)}
    return set()
