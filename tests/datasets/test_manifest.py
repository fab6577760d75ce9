import pytest

from datasets.errors import DataError
from datasets.manifest import PICTURE_COLUMNS, Manifest, atomic


def row(case: str, source: str, part: str = "1/1") -> dict:
    return dict.fromkeys(PICTURE_COLUMNS, "") | {"case": case, "source": source, "part": part, "pictures": "1"}


def test_rows_are_there_when_they_were_added_and_tidy_makes_one_order(tmp_path):
    paths = tmp_path / "a.csv", tmp_path / "b.csv"
    for path, order in zip(paths, ["xyz", "zyx"]):
        manifest = Manifest(path, PICTURE_COLUMNS)
        for name in order:
            manifest.add(name, [row(f"c{name}", name)])
            assert Manifest(path, PICTURE_COLUMNS).sources.keys() == manifest.sources.keys()
        manifest.tidy()
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("bytes_lost", range(1, 70, 7))
def test_a_source_whose_rows_were_half_written_is_not_there(tmp_path, bytes_lost):
    path = tmp_path / "a.csv"
    manifest = Manifest(path, PICTURE_COLUMNS)
    manifest.add("x", [row("cx", "x")])
    whole = path.stat().st_size
    manifest.add("y", [row("cy_0", "y", "1/2"), row("cy_1", "y", "2/2")])
    with open(path, "r+b") as file:
        file.truncate(max(whole, path.stat().st_size - bytes_lost))
    assert list(Manifest(path, PICTURE_COLUMNS).sources) == ["x"]


def test_a_case_that_now_comes_from_another_file_has_one_row(tmp_path):
    manifest = Manifest(tmp_path / "a.csv", PICTURE_COLUMNS)
    manifest.add("x", [row("c", "x")])
    manifest.add("y", [row("c", "y")])
    for seen in (manifest, Manifest(manifest.path, PICTURE_COLUMNS)):
        assert [(r["case"], r["source"]) for r in seen.rows] == [("c", "y")]


def test_a_table_that_is_no_manifest_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name,age\nx,3\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column case"):
        Manifest(tmp_path / "a.csv", PICTURE_COLUMNS)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no column case"):
        Manifest(tmp_path / "a.csv", PICTURE_COLUMNS)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("before", encoding="utf-8")
    with pytest.raises(RuntimeError), atomic(tmp_path / "a") as file:
        file.write(b"half")
        raise RuntimeError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"before")]
