"""The folder of a run: whose it is, whether it may be gone on with, and that one run alone works in it."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import socket
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .checkpoint import write_atomically
from .config import Config, as_plain, parse, read_flags, write_config
from .environment import environment
from .errors import UserError
from .processes import of_first
from .results import forget_means_over, forget_results
from .weights import refuse_foreign

# a run may go on although these differ: they change neither what is computed nor what is written
NOT_COMPARED = {"workers", "checkpoint_freq", "checkpoint_minutes", "timeout_minutes", "overwrite", "resume", "config"}
NOT_COMPARED |= {"image_store", "on_bad_file", "check_data", "evaluate"}
# the hashes of what they name are compared instead
PATHS = {"data_path", "volume_path", "image_path", "pretrained_path", "resnet_pretrained", "trans_pretrained", "start_from"}
PATHS |= {"checkpoint_name", "dump_path", "log_dir", "tensorboard_name"}
BATCHES = ("batch_size", "image_batch_size")  # a process; what must stay is their sum over processes
NAMES = ("run.json", "config.yaml", "metrics.jsonl", "PREEMPTED", "checked_files.json", "report.html")


SEED = re.compile(r"seed-(\d+)")  # the folder of one of several seeds' runs


class RunFolder:
    """`path` and what lies in it. Nothing is written before `take`, which the first process alone calls."""

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name
        self.checkpoints, self.metrics = path / "checkpoints", path / "metrics.jsonl"
        self.changed: list[str] = []  # what differs from the run that is gone on with all the same
        self.replaces = False  # whether weights of another run may be replaced
        self._known = {"config.yaml", "run.json"}
        self._lock = None

    # ---- before

    def heed_launcher(self, config: Config) -> None:
        """Takes back `--overwrite` when the launcher has started this very run again: what it has done stays. Collective."""
        self.replaces = config.overwrite
        again = of_first(lambda: _started_again() and self.identity().get("launch") == _launch())
        config.overwrite = config.overwrite and not again

    def refuse_what_would_be_lost(self, config: Config, output: Path, world: int) -> None:
        """Raises `UserError` when going on is not wanted, or would mix two runs, or replace the weights of another one.

        Where the number of processes has changed, `config.batch_size` is set so that the batch of all of them stays.
        """
        identity = self.identity()
        self._known = {name for name in ("config.yaml", "run.json") if (self.path / name).exists()}
        if config.overwrite:
            return
        refuse_foreign(output, identity.get("id"), self.replaces)
        used = self.path / "config.yaml"
        if not used.exists():
            return
        if config.resume == "never":
            raise UserError(
                f"{self.path} holds a run; choose another --dump_path and --checkpoint_name, or start over with --overwrite."
            )
        then = as_plain(parse(type(config), read_flags(type(config), str(used))))
        changed = self._differences(config, then) + _keep_batches(config, then, identity.get("global_batch", {}), world)
        self._refuse_changed(config, changed)

    def refuse_unlike(self, config: Config, constants: dict, batches: dict[str, int], world: int) -> None:
        """As `refuse_what_would_be_lost`, by what the state says, where somebody has removed what the folder should say."""
        changed = [] if "config.yaml" in self._known else self._differences(config, constants)
        if "run.json" not in self._known or "config.yaml" not in self._known:
            changed += _batch_changes(global_batch(config, world), batches, world)
        if changed:
            self._refuse_changed(config, changed)

    def compared(self, config: Config) -> dict:
        """The constants that must stay while a run goes on."""
        return {name: value for name, value in as_plain(config).items() if name not in self._not_compared()}

    def _differences(self, config: Config, then: dict) -> list[str]:
        now = self.compared(config)
        return [f"{k} was {then[k]}, is {now[k]}" for k in now if k in then and then[k] != now[k]]

    def _refuse_changed(self, config: Config, changed: list[str]) -> None:
        if changed and config.resume != "anyway":
            raise UserError(
                f"{self.path} holds a run of another configuration ({'; '.join(changed)}); choose another --dump_path "
                "and --checkpoint_name, go on all the same with --resume anyway, or start over with --overwrite."
            )
        self.changed = changed

    def identity(self) -> dict:
        """What `run.json` says, nothing where there is none."""
        try:
            return json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _not_compared(self) -> set[str]:
        return NOT_COMPARED | PATHS | {"epochs", *BATCHES}

    # ---- from the start of the loop on

    def take(self, overwrite: bool) -> None:
        """Makes the folder, or takes it up, for this process alone. `overwrite` removes what was there."""
        with self._written():
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock_it()
            if overwrite:
                self._clear()
            for unfinished in self.checkpoints.glob("step-*.tmp"):  # of a process that was killed
                shutil.rmtree(unfinished, ignore_errors=True)

    def begin(self, config: Config, world: int) -> str:
        """Makes the folder this run's, once nothing speaks against it any more → the run's id."""
        with self._written():
            run_id = self.write_identity(config, world, self.identity().get("id") or uuid.uuid4().hex)
            self.end_preemption()
            return run_id

    def end_preemption(self) -> None:
        """Takes away the note of `mark_preempted`."""
        (self.path / "PREEMPTED").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _written(self):
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); choose another --dump_path.") from None

    def _clear(self) -> None:
        """Removes what runs write, and nothing else that may lie there."""
        clear_seeds(self.path)
        if self.checkpoints.exists():
            shutil.rmtree(self.checkpoints)
        for name in NAMES:
            (self.path / name).unlink(missing_ok=True)
        forget_results(self.path)
        forget_means_over(self.path)

    def write_identity(self, config: Config, world: int, run_id: str) -> str:
        """Writes `run.json` and `config.yaml` → the run's id."""
        batches = global_batch(config, world)
        about = {"format_version": 1, "id": run_id, "script": self.name, "global_batch": batches, "launch": _launch()}
        about["environment"] = environment(world)
        write_atomically(self.path / "run.json", lambda path: path.write_text(json.dumps(about), encoding="utf-8"))
        write_atomically(
            self.path / "config.yaml", lambda path: write_config(replace(config, overwrite=False, resume="auto"), path)
        )
        return run_id

    def mended(self, config: Config, world: int, run_id: str) -> str | None:
        """Makes a folder that somebody has removed anew → a sentence about it.

        Raises `UserError` when another run has taken the folder since: the lock went with the one that was removed.
        """
        if (self.path / "run.json").exists() and self._lock_is_there():
            return None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.leave()
            self._lock_it()
            if self.identity().get("id") == run_id:
                return None
            if self.identity():
                self.leave()
                raise UserError(f"{self.path} was removed, and holds another run now; choose another --dump_path.")
            self.write_identity(config, world, run_id)
        except OSError as error:
            return f"warning: {self.path} was removed and cannot be made again ({error.strerror}); training goes on."
        return f"warning: {self.path} was removed; it is made again, without the lines of metrics.jsonl until now."

    def mark_preempted(self, sentence: str) -> None:
        """Leaves a note for the scripts of a scheduler; it goes when the run goes on. Any process may."""
        note = self.path / "PREEMPTED"
        with contextlib.suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(note, lambda path: path.write_text(sentence + "\n", encoding="utf-8"))

    def cut_metrics(self, length: int) -> None:
        """Lines that were written after the state that is gone on with go; they will be written again."""
        if self.metrics.exists() and self.metrics.stat().st_size > length:
            with open(self.metrics, "r+b") as file:
                file.truncate(length)

    def leave(self) -> None:
        """Lets another run have the folder."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def _lock_is_there(self) -> bool:
        """Whether the file that this process has locked is still the one that others would lock."""
        try:
            return self._lock is None or os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / "lock"))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # for now nobody knows

    def _lock_it(self) -> None:
        # a lock of the process: it ends with it, however that ends, and the loader's workers do not hold it
        lock = open(self.path / "lock", "a+", encoding="utf-8")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                lock.close()
                print(
                    f"warning: {self.path} cannot be locked ({error.strerror}); see to it yourself that one run alone uses it.",
                    file=sys.stderr,
                )
                return
            lock.seek(0)
            who = lock.read().strip()
            lock.close()
            raise UserError(f"{self.path} is in use by another run ({who}); choose another --dump_path.") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        self._lock = lock


def clear_seeds(folder: Path, keep: Sequence[int] = ()) -> None:
    """Removes what the runs of several seeds have written inside `folder`, and their folders where nothing else is in them.

    keep: seeds whose runs stay. Raises `UserError` when one of the others is going on.
    """
    for path in sorted(folder.glob("seed-*")):
        number = SEED.fullmatch(path.name)
        if not number or int(number[1]) in keep or not (path / "run.json").is_file():
            continue
        inside = RunFolder(path, path.name)
        inside.take(overwrite=True)
        (path / "lock").unlink(missing_ok=True)
        inside.leave()
        events = path / Config.tensorboard_name
        for file in events.glob("events.out.tfevents.*"):
            file.unlink()
        for emptied in (events, path):
            with contextlib.suppress(OSError):  # there is none, or somebody else's files are in it
                emptied.rmdir()


def _keep_batches(config: Config, then: dict, kept: dict[str, int], world: int) -> list[str]:
    """Sets the batch of a process so that the batch of all stays as it was → what differs all the same."""
    for name, total in kept.items():
        if getattr(config, name) == then[name] and total % world == 0:
            setattr(config, name, total // world)
    return _batch_changes(global_batch(config, world), kept, world)


def _batch_changes(now: dict[str, int], kept: dict[str, int], world: int) -> list[str]:
    changed = []
    for name, total in kept.items():
        if now[name] != total:
            right = f"--{name} {total // world}" if total % world == 0 else "another number of processes"
            changed.append(f"{name} of all processes was {total}, is {now[name]}: use {right}")
    return changed


def global_batch(config: Config, world: int) -> dict[str, int]:
    """The batch of all processes together, by the name of the constant."""
    return {name: getattr(config, name) * world for name in BATCHES if hasattr(config, name)}


def _launch() -> str:
    """What the launcher calls this start; the same when it starts it again."""
    run_id = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID") or ""
    if run_id != "none":
        return run_id
    # torchrun with a fixed address calls all its runs so; but its process stays the same while it starts this one again
    return f"port {os.environ.get('MASTER_PORT')}, process {os.getppid()} of {_started_at(os.getppid())}"


def _started_at(process: int) -> str:
    """When a process began, in ticks since the machine did; "" where the system does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _started_again() -> bool:
    return any(int(os.environ.get(name) or 0) for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
