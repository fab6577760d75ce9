"""Checkpoints as folders: complete, verified, and never half-written.

`step-000123.tmp/` is filled, every file synced to disk and its hash put into `manifest.json`, then the folder is renamed and
`last` is pointed at it. A damaged folder is moved to `*.bad`, and the one before is taken.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import torch

from .errors import UserError

FORMAT_VERSION = 2
ALWAYS = ("model.pt", "position.pt")  # without them a state is none, whatever else a run may keep
PIECE = 2**25  # bytes that are written before they are brought to the disk


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Brings a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, write) -> None:
    """Calls `write(temporary path)`, syncs, and renames to `path`: readers see the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # safetensors writes for its owner alone
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_checkpoint(root: Path, step: int, state: dict, keep_copy: bool = False) -> Path:
    """Writes each entry of `state` as `<name>.pt` into `root/step-<step>`; all but the two newest go, save kept copies.

    Where the disk is full, the older of the two goes first. What could not be written whole is removed, and the OSError raised.
    """
    folder = root / f"step-{step:06d}"
    try:
        _fill(folder, step, state, keep_copy)
    except OSError as error:
        spare = [of for of in [of for of in _steps(root) if of != folder][:-1] if not _kept(of)]
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not spare:
            raise
        for of in spare:
            shutil.rmtree(of)
        _fill(folder, step, state, keep_copy)
    sync(root)
    write_atomically(root / "last", lambda path: path.write_text(folder.name, encoding="utf-8"))
    _drop_old(root, newest=folder.name)
    return folder


def _fill(folder: Path, step: int, state: dict, keep_copy: bool) -> None:
    """Writes all of a checkpoint beside where it goes, then puts it there."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        files = {f"{name}.pt": _write(value, temporary / f"{name}.pt") for name, value in state.items()}
        _write_manifest(temporary / "manifest.json", {"step": step, "keep": keep_copy, "files": files})
        sync(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load_checkpoint(root: Path, set_aside: bool = True) -> dict | None:
    """The newest state that is whole, or None when there is none. Damaged ones are moved to `*.bad`, with a message.

    set_aside: False leaves them where they are. Raises `UserError` when there are states, but all are damaged, or when one
    cannot be read for now; then it stays, for nobody knows whether it is damaged.
    """
    try:
        folders = _steps(root)
        for folder in reversed(folders):
            reason = damage(folder)
            if reason is None:
                names = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
                return {Path(n).stem: torch.load(folder / n, map_location="cpu", weights_only=True) for n in names}
            if set_aside:
                bad = folder.with_name(folder.name + ".bad")
                shutil.rmtree(bad, ignore_errors=True)
                os.replace(folder, bad)
                print(f"warning: {folder} is damaged ({reason}); moved to {bad.name}, taking the one before.", file=sys.stderr)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "the memory is used up"
        raise UserError(f"{root} cannot be read ({reason}); nothing was moved, give the same command again.") from None
    if folders:
        raise UserError(f"{root} holds no state that is whole any more; start over with --overwrite.")
    return None


def load_part(root: Path, name: str):
    """One entry of the newest state that is whole, such as "model"; None when there is no such state. Nothing is moved."""
    for folder in reversed(_steps(root)):
        if damage(folder) is None:
            return torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
    return None


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None. Raises OSError and MemoryError when that cannot be found out."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if (manifest["format_version"] > 1 or "digest" in manifest) and _digest(manifest) != manifest["digest"]:
            return "manifest.json changed since it was written"
        if manifest["format_version"] > FORMAT_VERSION:
            raise UserError(f"{folder} was written by a newer version (format {manifest['format_version']}); update this one.")
        if any(Path(name).name != name for name in manifest["files"]):
            return "manifest.json names files of other folders"
        if absent := [name for name in ALWAYS if name not in manifest["files"]]:
            return f"manifest.json names no {' and no '.join(absent)}"
        wrong = [name for name, digest in manifest["files"].items() if sha256(folder / name) != digest]
        packed = [] if wrong else [name for name in manifest["files"] if _packed(folder / name)]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        return f"{Path(error.filename).name}: {error.strerror}"
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever a parser of damaged text may raise
        return f"{type(error).__name__}: {error}"
    if packed:
        return f"{', '.join(packed)} is packed, as none of ours is, and may be made to fill the memory"
    return f"{', '.join(wrong)} changed since it was written" if wrong else None


def _packed(path: Path) -> bool:
    """Whether more would be unpacked from an archive than the file holds; torch asks for the memory before it looks."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    return not stored or sum(entry.file_size for entry in entries) > path.stat().st_size


class _Hashed:
    """A file to write to, and the SHA-256 of what was written. `finish` brings the rest to the disk.

    What is on the disk leaves the system's memory at once: nobody reads it soon, and new pages for gigabytes cost more than
    writing over the same few.
    """

    def __init__(self, file):
        self.file, self.hash, self.waiting = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, data) -> int:
        data = memoryview(data).cast("B")
        self.hash.update(data)
        try:
            for first in range(0, len(data), PIECE):
                piece = data[first : first + PIECE]
                self.file.write(piece)
                self.waiting += len(piece)
                if self.waiting >= PIECE:
                    self.finish()
        except OSError as error:
            self.error = error  # torch says of it that its place in the file is wrong
            raise
        return len(data)

    def flush(self) -> None:
        self.file.flush()

    def finish(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.waiting = 0


def _write(value, path: Path) -> str:
    """Saves and syncs; the SHA-256 is that of the bytes that were meant to be written."""
    with open(path, "wb") as file:
        hashed = _Hashed(file)
        try:
            torch.save(value, hashed)
        except RuntimeError:
            raise hashed.error or OSError(errno.EIO, "torch could not write it") from None
        hashed.finish()
    return hashed.hash.hexdigest()


def _write_manifest(path: Path, about: dict) -> None:
    manifest = {"format_version": FORMAT_VERSION, **about}
    path.write_text(json.dumps({**manifest, "digest": _digest(manifest)}, indent=1), encoding="utf-8")
    sync(path)


def _digest(manifest: dict) -> str:
    told = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _steps(root: Path) -> list[Path]:
    folders = [path for path in root.glob("step-*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(folders, key=lambda path: int(path.name[5:]))


def _drop_old(root: Path, newest: str) -> None:
    for folder in _steps(root)[:-2]:
        if folder.name != newest and not _kept(folder):
            shutil.rmtree(folder)


def _kept(folder: Path) -> bool:
    """Whether it is a copy to be kept; where that cannot be read any more, it may be one."""
    try:
        return bool(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["keep"])
    except FileNotFoundError:
        return False
    except Exception:
        return True
