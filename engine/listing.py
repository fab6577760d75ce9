"""Which files a run reads: listed by its first process, seen by all, and without those that cannot be learned from."""

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch.distributed as dist
from tqdm import tqdm

from .checkpoint import write_atomically
from .errors import UserError
from .processes import gather_objects, of_first, raise_together

MOST_NAMED = 5


class Listing:
    """Lists of files, alike on all processes. An item has a `path`, a `name`, and a `fault()`, which reads all of it.

    on_bad_file: "skip" reads every file once, the processes each a share, and leaves out what has a fault (`left_out`, reasons
    by name); "stop" reads nothing beforehand. Which files are good is kept in `memory`, so that a run that goes on reads only
    those that have changed, and bad ones, which may have been out of reach for once; anew: what is in it does not count.
    """

    def __init__(self, on_bad_file: str, threads: int, memory: Path | None = None, anew: bool = False):
        self.skip, self.threads, self.memory = on_bad_file == "skip", max(1, threads), memory
        self.left_out: dict[str, str] = {}
        self.looked_at: set[Path] = set()
        self.known: dict[str, list] = {}  # path → size, time of change, fault
        if self.skip and memory and not anew:
            self.known = _remembered(memory)

    def find(self, find, *args):
        """What `find(*args)` gives on the first process: a list of items, or several. Collective.

        Raises what `find` raises, `UserError` when a process does not see the same files, or when no file is left.
        """
        found = of_first(lambda: _with_sizes(find(*args)))
        lists, sizes = found
        raise_together(_unseen([item for items in lists for item in items], sizes))
        if self.skip:
            lists = [self._without_bad(items) for items in lists]
        return lists[0] if len(lists) == 1 else tuple(lists)

    def concerns(self, found) -> list[str]:
        """What the headers of files that were found say is wrong, in sentences; of each list once. Collective.

        Raises `UserError` for a file that cannot be read at all, unless such files are left out.
        """
        lists = [found] if isinstance(found, list) else list(found)
        new = [items for items in lists if items and not {item.path for item in items} <= self.looked_at]
        self.looked_at |= {item.path for items in new for item in items}
        said = of_first(lambda: [concern for items in new for concern in items[0].concerns(items)])
        unreadable = [sentence for cannot_be_read, sentence in said if cannot_be_read]
        if unreadable and not self.skip:
            more = f" {len(unreadable) - 1} more are so." if len(unreadable) > 1 else ""
            raise UserError(f"{unreadable[0]}{more} Replace or remove such files, or leave them out: --on_bad_file skip.")
        return [sentence for cannot_be_read, sentence in said if not cannot_be_read]

    def save(self) -> None:
        """Keeps which files are good, where that can be written; for the first process alone."""
        if self.skip and self.memory:
            good = json.dumps({path: of for path, of in self.known.items() if not of[2]})
            with contextlib.suppress(OSError):  # they are read once more, then
                write_atomically(self.memory, lambda path: path.write_text(good, encoding="utf-8"))

    def _without_bad(self, items: list) -> list:
        self._look_at(items)
        faults = {item.name: self.known[str(item.path)][2] for item in items}
        left = [item for item in items if not faults[item.name]]
        if items and not left:
            raise UserError(f"none of {len(items)} files can be learned from; the first: {faults[items[0].name]}")
        self.left_out |= {name: fault for name, fault in faults.items() if fault}
        return left

    def _look_at(self, items: list) -> None:
        """Reads those that are not known, or have changed since; each process a share."""
        stamps = {str(item.path): _stamp(item.path) for item in items}
        new = [item for item in items if self.known.get(str(item.path), [])[:2] != stamps[str(item.path)]]
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        mine = new[rank::world]
        with ThreadPoolExecutor(self.threads) as pool:
            faults = pool.map(lambda item: item.fault(), mine)
            shown = tqdm(faults, "reading all files once", len(mine), unit="file", leave=False, disable=rank > 0)
            try:
                seen = {str(item.path): [*stamps[str(item.path)], fault] for item, fault in zip(mine, shown)}
            except BaseException:  # a signal to stop waits for no other file
                pool.shutdown(cancel_futures=True)
                raise
        for of_one in gather_objects(seen):
            self.known |= of_one


def _remembered(memory: Path) -> dict[str, list]:
    """What an earlier start of the run has kept; nothing when that cannot be read."""
    try:
        kept = json.loads(memory.read_text(encoding="utf-8"))
        return {path: [size, changed, fault] for path, (size, changed, fault) in kept.items() if not fault}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def warnings_of(concerns: list[str]) -> list[str]:
    """The first of what seems wrong with files, as warnings."""
    said = [f"warning: {sentence}" for sentence in concerns[:MOST_NAMED]]
    if len(concerns) > MOST_NAMED:
        said.append(f"warning: and {len(concerns) - MOST_NAMED} more; prepare_data.py --check full tells all.")
    return said


def told(left_out: dict[str, str]) -> str:
    """A sentence about files that were left out; "" for none."""
    if not left_out:
        return ""
    some = list(left_out.values())[:MOST_NAMED]
    more = len(left_out) - len(some)
    return f"{len(left_out)} file(s) were left out (--on_bad_file skip): {' '.join(some)}{f' And {more} more.' if more else ''}"


def _with_sizes(found) -> tuple[list[list], list[int]]:
    lists = [found] if isinstance(found, list) else list(found)
    return lists, [_size(item.path) for items in lists for item in items]


def _unseen(items: list, sizes: list[int]) -> str | None:
    for item, size in zip(items, sizes):
        if _size(item.path) != size:
            return f"it does not see {item.path} as the first process does; all machines must read the same folders."
    return None


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1  # reading it says what is wrong


def _stamp(path: Path) -> list[int]:
    try:
        stat = os.stat(path)
        return [stat.st_size, stat.st_mtime_ns]
    except OSError:
        return [-1, -1]
