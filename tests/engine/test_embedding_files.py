import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from engine import embedding_files
from engine.embedding_files import EmbeddingWriter, about_embeddings, read_pieces
from engine.errors import UserError


def row(number: int, **more) -> dict:
    known = {"file": f"a/{number}.npy", "kind": "volume", "frame": None, "slice": None}
    return known | {"collection": "a", "label": "", "subject": ""} | more


def drawn(seed: int, rows: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def write(path: Path, pieces: int, rows: int = 5, width: int = 6) -> None:
    with EmbeddingWriter(path, {"weights": "w.pth"}) as out:
        for piece in range(pieces):
            out.add([row(piece * rows + number) for number in range(rows)], drawn(piece, rows, width))


@pytest.mark.parametrize("ending", ["parquet", "npy"])
def test_what_is_written_in_pieces_is_read_again_in_order(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(embedding_files, "PIECE", 150)
    path = tmp_path / f"new/out.{ending}"
    write(path, 4)
    rows, blocks = zip(*read_pieces(path))
    assert np.array_equal(np.concatenate(blocks), np.concatenate([drawn(piece, 5) for piece in range(4)]))
    assert [one for of in rows for one in of] == [row(number) for number in range(20)]
    assert about_embeddings(path).get("weights") == {"parquet": "w.pth", "npy": None}[ending]


def test_others_read_the_files_without_us(tmp_path):
    import pyarrow.parquet as pq

    write(tmp_path / "out.npy", 3)
    write(tmp_path / "out.parquet", 3)
    plain, table = np.load(tmp_path / "out.npy"), pq.read_table(tmp_path / "out.parquet")
    assert plain.shape == (15, 6) and plain.dtype == np.float32
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), plain)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1].startswith("a/0.npy,volume,,,a")


@pytest.mark.parametrize("ending", ["parquet", "npy"])
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, monkeypatch, ending):
    import pyarrow as pa

    monkeypatch.setattr(embedding_files, "PIECE", 2**18)
    peaks, usual = [], pa.default_memory_pool()
    for pieces in (20, 20, 200):  # the first one loads modules
        pool = pa.proxy_memory_pool(usual)
        pa.set_memory_pool(pool)
        tracemalloc.start()
        write(tmp_path / f"{pieces}.{ending}", pieces, 32, 640)
        peaks.append(tracemalloc.get_traced_memory()[1] + pool.max_memory())
        tracemalloc.stop()
        pa.set_memory_pool(usual)
    assert peaks[2] < peaks[1] + 2**18 < 200 * 32 * 640 * 4 / 5


@pytest.mark.parametrize("ending", ["parquet", "npy"])
def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(embedding_files, "PIECE", 1)
    path = tmp_path / f"out.{ending}"
    with pytest.raises(RuntimeError, match="stop"), EmbeddingWriter(path, {}) as out:
        out.add([row(0)], drawn(0, 1))
        raise RuntimeError("stop")
    with EmbeddingWriter(path, {}):
        pass  # nothing to write
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_utf_8_are_kept_or_marked(tmp_path):
    name = b"\xe9.npy".decode("utf-8", "surrogateescape")
    for ending, kept in [("parquet", "\ufffd.npy"), ("npy", name)]:
        with EmbeddingWriter(tmp_path / f"out.{ending}", {}) as out:
            out.add([row(0, file=name, frame=2)], drawn(0, 1))
        rows, _ = next(read_pieces(tmp_path / f"out.{ending}"))
        assert (rows[0]["file"], rows[0]["frame"]) == (kept, 2)


def test_other_files_are_refused_in_a_sentence(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    np.save(tmp_path / "c.npy", drawn(0, 2))
    write(tmp_path / "d.npy", 1)
    np.save(tmp_path / "d.npy", drawn(0, 9))
    for name, says in [
        ("a.parquet", "cannot be read as a Parquet file"),
        ("b.parquet", "has not the columns file, kind"),
        ("c.npy", r"c\.csv cannot be read \(No such file"),
        ("d.npy", r"d\.csv does not tell the rows of"),
        ("e.npy", r"e\.npy cannot be read"),
    ]:
        with pytest.raises(UserError, match=f"{says}.*; give a file that embed.py wrote"):
            list(read_pieces(tmp_path / name))
