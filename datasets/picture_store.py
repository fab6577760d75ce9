"""Pictures decoded once: their pixels in one memory-mapped file, from which all later epochs read."""

from functools import cached_property
from pathlib import Path

import numpy as np

from .reading import open_image

DTYPES = {"I;16": np.uint16, "I": np.uint16, "F": np.float32}  # by PIL's mode; all others turn to 8 bits of grey


class PictureStore:
    """Room for pictures of the shapes and types that their headers promise, filled by whoever decodes one first.

    All processes of a machine share the file: `write` sets a picture's byte in `done` after its pixels, `read` looks there. A
    picture that is not what its header promised is not kept. Views on the file that `read` gives must not be written to.
    """

    def __init__(self, paths: list[Path]):
        self.headers = [_header(path) for path in paths]
        sizes = [height * width * dtype.itemsize for height, width, dtype in self.headers]
        first = -(-17 * len(paths) // 64) * 64  # after a byte and two float64 for each
        self.places = first + np.concatenate([[0], np.cumsum([-(-size // 64) * 64 for size in sizes], dtype=np.int64)])
        self.path: Path | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return int(self.places[-1])

    def open(self, path: Path) -> None:
        """Takes `path`, a file of `size` bytes that begins with zeros."""
        self.path = path

    def read(self, index: int) -> tuple[np.ndarray, tuple[float, float]] | None:
        """Pixels (H, W) and their intensity range, or None before they were written."""
        done, ranges, pixels = self._parts
        if not done[index]:
            return None
        height, width, dtype = self.headers[index]
        first = int(self.places[index])
        whole = pixels[first : first + height * width * dtype.itemsize]
        return whole.view(dtype).reshape(height, width), (float(ranges[index, 0]), float(ranges[index, 1]))

    def write(self, index: int, picture: np.ndarray, of_picture: tuple[float, float]) -> None:
        """Keeps a picture (H, W) and its intensity range."""
        height, width, dtype = self.headers[index]
        if picture.shape != (height, width) or picture.dtype != dtype:
            return
        done, ranges, pixels = self._parts
        first = int(self.places[index])
        pixels[first : first + picture.nbytes] = picture.reshape(-1).view(np.uint8)
        ranges[index] = of_picture
        done[index] = 1

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = len(self.headers)
        whole = np.memmap(self.path, np.uint8, "r+", shape=(self.size,))
        ranges = whole[: 16 * count].view(np.float64).reshape(count, 2)
        return whole[16 * count : 17 * count], ranges, np.asarray(whole)

    def __getstate__(self) -> dict:
        # a process that is not forked maps the file anew: a pickled map would be a copy
        return {name: value for name, value in self.__dict__.items() if name != "_parts"}


def _header(path: Path) -> tuple[int, int, np.dtype]:
    try:
        with open_image(path) as image:
            return image.height, image.width, np.dtype(DTYPES.get(image.mode, np.uint8))
    except Exception:
        return 0, 0, np.dtype(np.uint8)  # reading it says what is wrong
