"""Stages of a pipeline: scripts in processes of their own, run again only when something that they depend on has changed."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from .checkpoint import sha256, write_atomically
from .errors import Preempted, UserError

ROOT = Path(__file__).resolve().parent.parent
CODE = ("models", "datasets", "losses", "engine")


@dataclass(frozen=True, eq=False)
class Stage:
    """A script, the folder of its run, its constants, the weight files that it starts from, and the one that it writes."""

    script: str
    folder: Path
    constants: dict
    reads: list[Path]
    writes: Path


def run_stage(stage: Stage, nproc: int, data: str, figures: Callable[[Path], dict]) -> dict:
    """Runs a stage on `nproc` processes, unless its output is up to date, and returns its figures.

    data: a fingerprint of what it learns from. figures: what is to be known of the run in a folder; `script` and `seconds` are
    added. Raises `UserError` when the script fails, `Preempted` when it was asked to stop and has saved.
    """
    folder, record = stage.folder, stage.folder / "stage.json"
    depends = {
        "constants": {**stage.constants, "nproc": nproc},
        "data": data,
        "code": code_of(stage.script),
        "inputs": {str(path): sha256(path) for path in stage.reads},
    }
    done = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if stage.writes.exists() and done.get("depends") == depends and done.get("output") == sha256(stage.writes):
        print(f"{folder}: up to date, skipped", flush=True)
        return done["row"]
    record.unlink(missing_ok=True)
    goes_on, changed = interrupted(folder, depends), changed_since(folder, depends)
    if changed:
        print(f"{folder}: done anew, in place of what is there, since this has changed: {changed}", flush=True)
    if goes_on:
        stage.writes.unlink(missing_ok=True)  # damaged, or from before
    constants = {**stage.constants, "dump_path": str(folder), "overwrite": not goes_on}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "depends.json", lambda path: path.write_text(json.dumps(depends), encoding="utf-8"))
    (folder / "constants.yaml").write_text(yaml.safe_dump(constants, sort_keys=False), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}"] if nproc > 1 else []
    began = time.monotonic()
    code = run_child([sys.executable, *launcher, str(ROOT / stage.script), "--config", str(folder / "constants.yaml")])
    if code and (folder / "PREEMPTED").exists():
        raise Preempted(f"{stage.script} was asked to stop and has saved; the same command goes on.")
    if code:
        raise UserError(f"{stage.script} ended with code {code}; mend what it says and run the same command again.")
    row = {**figures(folder), "script": stage.script, "seconds": time.monotonic() - began}
    done = {"depends": depends, "output": sha256(stage.writes), "row": row}
    write_atomically(record, lambda path: path.write_text(json.dumps(done, indent=1), encoding="utf-8"))
    return row


def run_child(words: list[str]) -> int:
    """Runs a command to its end → its code. Asked to stop, it takes the time to save.

    SIGTERM is passed on to it. Ctrl-C is not: a terminal tells all of its processes, and a second one would end it at once.
    """
    before = {}
    with subprocess.Popen(words) as child:
        try:
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
            before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
            return child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def changed_since(folder: Path, depends: dict) -> str:
    """What of a stage has changed since it was begun in `folder`, in words; "" where it was not, or nothing has."""
    path = folder / "depends.json"
    if not path.exists():
        return ""
    then, now = json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(depends))
    names = [name for name in now if name != "constants" and then.get(name) != now[name]]
    of_both = {**then.get("constants", {}), **now["constants"]}
    names += [name for name in of_both if then.get("constants", {}).get(name) != now["constants"].get(name)]
    return ", ".join("input weights" if name == "inputs" else name for name in names)


def interrupted(folder: Path, depends: dict) -> bool:
    """Was this very stage begun before, so that its checkpoints can be gone on with?"""
    path = folder / "depends.json"
    return path.exists() and json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(depends))


def code_of(script: str) -> str:
    """A hash of everything that a stage's script takes from this project."""
    paths = [ROOT / script, ROOT / script.replace("swav", "deepcluster")]
    paths += sorted(path for package in CODE for path in (ROOT / package).glob("*.py"))
    paths += sorted((ROOT / "configs").glob("*/*.yaml"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def fingerprint(paths: Iterable[Path]) -> str:
    """A hash of names, sizes and times of files."""
    listed = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(listed).encode(errors="surrogateescape")).hexdigest()


def last_epoch(folder: Path) -> dict:
    """The figures of a run's last epoch, from its `metrics.jsonl`."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == "epoch"][-1]


def results_on_test(folder: Path) -> dict:
    """What a fine-tuned network scored on the test split, from its `results.json`."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["test"]
