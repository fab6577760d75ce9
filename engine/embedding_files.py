"""Files of embeddings: Parquet, or NPY with a CSV table of what each row is; written and read in pieces."""

import csv
import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from .checkpoint import sync
from .errors import UserError

COLUMNS = ("file", "kind", "frame", "slice", "collection", "label", "subject")  # frame, slice: numbers, or None
PIECE = 2**24  # bytes of embeddings that are kept before they are written


class EmbeddingWriter:
    """`with EmbeddingWriter(path, about) as out: out.add(…)`: the file appears under its name, whole, or not at all.

    path: ends in .parquet or .npy (and a .csv beside it then). about: texts by name, kept in a Parquet file.
    """

    def __init__(self, path: Path, about: dict[str, str]):
        self.path, self.about, self.rows, self.count = path, about, [], 0
        self.table = None if path.suffix == ".parquet" else path.with_suffix(".csv")
        self._waiting: list[np.ndarray] = []
        self._sink = None

    def __enter__(self) -> "EmbeddingWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, rows: list[dict], embeddings: np.ndarray) -> None:
        """rows: what each embedding is of, by `COLUMNS`; embeddings (n, D) float32."""
        self.rows += rows
        self._waiting.append(embeddings)
        self.count += len(rows)
        if sum(block.nbytes for block in self._waiting) >= PIECE:
            self._write()

    def __exit__(self, kind, error, trace) -> None:
        finished = [path for path in (self.table, self.path) if path]
        try:
            if kind is None and self._waiting:
                self._write()
            if self._sink:
                self._sink.close()
            for path in finished if kind is None and self._sink else ():
                sync(temporary(path))
                os.replace(temporary(path), path)
        finally:
            for path in finished:
                temporary(path).unlink(missing_ok=True)

    def _write(self) -> None:
        embeddings = np.concatenate(self._waiting)
        if self._sink is None:
            width = embeddings.shape[1]
            self._sink = _Npy(self.path, self.table, width) if self.table else _Parquet(self.path, width, self.about)
        self._sink.write(self.rows, embeddings)
        self.rows, self._waiting = [], []


def temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


class _Parquet:
    """A row group a piece."""

    def __init__(self, path: Path, width: int, about: dict[str, str]):
        import pyarrow as pa  # for such files alone
        import pyarrow.parquet as pq

        self.arrow = pa
        number, text = pa.int32(), pa.string()
        fields = [pa.field(name, number if name in ("frame", "slice") else text) for name in COLUMNS]
        fields.append(pa.field("embedding", pa.list_(pa.float32(), width)))
        self.schema = pa.schema(fields, metadata=about)
        self.writer = pq.ParquetWriter(temporary(path), self.schema, compression="zstd")

    def write(self, rows: list[dict], embeddings: np.ndarray) -> None:
        flat = self.arrow.array(embeddings.ravel())
        arrays = [self.arrow.array([_printable(row[f.name]) for row in rows], f.type) for f in list(self.schema)[:-1]]
        arrays.append(self.arrow.FixedSizeListArray.from_arrays(flat, embeddings.shape[1]))
        self.writer.write_table(self.arrow.table(arrays, schema=self.schema))

    def close(self) -> None:
        self.writer.close()


def _printable(value):
    """Names that are no UTF-8, which Parquet's texts are, with a sign for what is not."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(value, str) else value


class _Npy:
    """Rows one behind the other; the header is written once more when their number is known."""

    def __init__(self, path: Path, table: Path, width: int):
        self.width, self.count = width, 0
        with ExitStack() as opened:
            self.file = opened.enter_context(open(temporary(path), "wb"))
            self.table = opened.enter_context(
                open(temporary(table), "w", newline="", encoding="utf-8", errors="surrogateescape")
            )
            self.opened = opened.pop_all()
        self.writer = csv.DictWriter(self.table, COLUMNS, lineterminator="\n")
        self.writer.writeheader()
        self._write_header()

    def write(self, rows: list[dict], embeddings: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(embeddings, np.float32).data)
        self.writer.writerows(rows)
        self.count += len(embeddings)

    def close(self) -> None:
        begin = self.file.tell() - 4 * self.width * self.count
        self.file.seek(0)
        self._write_header()
        assert self.file.tell() == begin  # numpy leaves room for a first axis of any length
        self.opened.close()

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self.width)}
        np.lib.format.write_array_header_1_0(self.file, header)


def about_embeddings(path: Path) -> dict[str, str]:
    """What a Parquet file of embeddings says of itself; nothing of an NPY file. Raises `UserError` when it cannot be read."""
    if path.suffix == ".npy":
        return {}
    metadata = _opened(path).schema_arrow.metadata or {}
    return {name.decode(): value.decode() for name, value in metadata.items()}


def read_pieces(path: Path) -> Iterator[tuple[list[dict], np.ndarray]]:
    """Pieces of what `EmbeddingWriter` wrote: rows, and their embeddings (n, D) float32. Raises `UserError` for other files."""
    yield from _npy_pieces(path) if path.suffix == ".npy" else _parquet_pieces(path)


def _opened(path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read as a Parquet file ({str(error).splitlines()[0]}); {_WANTED}") from None
    if {*COLUMNS, "embedding"} - set(file.schema_arrow.names):
        raise UserError(f"{path} has not the columns {', '.join(COLUMNS)} and embedding; {_WANTED}")
    return file


def _parquet_pieces(path: Path) -> Iterator[tuple[list[dict], np.ndarray]]:
    for batch in _opened(path).iter_batches():
        embeddings = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
        yield batch.select(COLUMNS).to_pylist(), embeddings.reshape(len(batch), -1)


def _npy_pieces(path: Path) -> Iterator[tuple[list[dict], np.ndarray]]:
    table = path.with_suffix(".csv")
    try:
        embeddings = np.load(path, mmap_mode="r")
        file = open(table, newline="", encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{getattr(error, 'filename', None) or path} cannot be read ({reason}); {_WANTED}") from None
    with file:
        reader, step = csv.DictReader(file), max(1, PIECE // (4 * embeddings.shape[-1]))
        for first in range(0, len(embeddings), step):
            block = np.array(embeddings[first : first + step])
            rows = [_typed(row) for row in itertools.islice(reader, len(block))]
            if embeddings.ndim != 2 or set(reader.fieldnames or ()) != set(COLUMNS) or len(rows) < len(block):
                raise UserError(f"{table} does not tell the rows of {path}; {_WANTED}")
            yield rows, block


def _typed(row: dict[str, str]) -> dict:
    return {**row, **{name: int(row[name]) if row[name] else None for name in ("frame", "slice")}}


_WANTED = "give a file that embed.py wrote."
