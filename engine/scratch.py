"""Large files that a run keeps beside its states while it goes on, and removes when it ends."""

import atexit
import os
import shutil
from pathlib import Path

from .errors import UserError


class Scratch:
    """Files below `folder`. `remove` removes those that this process made; so does its end."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.made: list[Path] = []

    def make(self, name: str, size: int) -> Path:
        """A file of `size` zero bytes, for which the disk has room. Raises `UserError` when it has not."""
        path = self.folder / name
        try:
            with open(path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            path.unlink(missing_ok=True)
            reason = f"{error.strerror}: {size / 2**30:.1f} GiB are needed"
            refusal = UserError(f"{path} cannot be made ({reason}); choose another --dump_path or keep less.")
            refusal.of_one_rank = True  # of this machine
            raise refusal from None
        self.made.append(path)
        atexit.register(self.remove)  # however this process ends, short of SIGKILL
        return path

    def make_if_small(self, name: str, size: int, always: bool) -> str:
        """Makes a file for decoded images, unless it takes more than half of what there is and is not wanted `always`.

        One that an earlier process has left goes. Gives the sentence about it.
        """
        (self.folder / name).unlink(missing_ok=True)
        half, gigabytes = None if always else larger_than_half(size, self.folder), f"{size / 2**30:.2g} GiB decoded"
        if half:
            return f"images are decoded each time: {gigabytes} are over half of {half} (--image_store on keeps them)."
        return f"images are decoded once, into {self.make(name, size)} ({gigabytes})."

    def found(self, name: str, size: int) -> Path | None:
        """A file of `size` bytes that this process or another one has made; None where there is none."""
        path = self.folder / name
        return path if path.exists() and path.stat().st_size == size else None

    def size(self) -> int:
        """Bytes of the files that this process has made."""
        return sum(path.stat().st_size for path in self.made)

    def remove(self) -> None:
        for path in self.made:
            path.unlink(missing_ok=True)
        self.made = []


def larger_than_half(size: int, folder: Path) -> str | None:
    """Why `size` bytes below `folder` would be slow or greedy to keep: of what of this machine they take more than half."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory / 2:
        return "the memory"
    return "the free disk" if size > shutil.disk_usage(folder).free / 2 else None
