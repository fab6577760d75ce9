"""Embeddings of folders, and the most similar files, from small weights with random numbers."""

import os
import signal
import weakref
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

import embed
from datasets.streamed import AnyFiles
from engine.config import parse
from engine.embedding_files import read_pieces
from engine.errors import UserError, speaking_to_people
from hubconf import load_model, read_volume
from tests.small_weights import write_image, write_joint

PLAIN = ["--workers", "0", "--precision", "fp32", "--batch_size", "3"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Seven volumes of two collections and three formats, a picture, labels of some."""
    monkeypatch.chdir(tmp_path)
    write_joint(tmp_path / "joint.pth")
    write_image(tmp_path / "image.pth")
    rng = np.random.default_rng(0)
    for folder in ("ct", "mr"):
        (tmp_path / "scans" / folder).mkdir(parents=True)
    for number in range(6):
        volume = rng.integers(0, 99, (30, 26, 5 + number)).astype([np.uint8, np.int16][number % 2])
        np.save(f"scans/{['ct', 'mr'][number % 2]}/{number}.npy", volume)
    nibabel.save(nibabel.Nifti1Image(rng.normal(size=(20, 24, 9)).astype(np.float32), np.eye(4)), "scans/ct/6.nii.gz")
    Image.fromarray(rng.integers(0, 255, (40, 36)).astype(np.uint8)).save("scans/ct/7.png")
    rows = ["path,label,subject", "ct/0.npy,sick,anna", "ct/2.npy,well,anna", "ct/4.npy,sick,bert"]
    Path("scans/labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def run(*words) -> None:
    embed.main(parse(embed.EmbeddingConfig, [*PLAIN, *map(str, words)]))


def table(path: str) -> tuple[list[dict], np.ndarray]:
    rows, blocks = zip(*read_pieces(Path(path)))
    return [row for of in rows for row in of], np.concatenate(blocks)


@pytest.mark.parametrize("weights", ["joint.pth", "image.pth"])
def test_a_row_is_what_load_model_gives_of_the_file(here, weights, capsys):
    run("scans", "--weights", weights, "--output", "out/e.parquet")
    assert "8 embeddings of 8 files are in out/e.parquet" in capsys.readouterr().out
    rows, embeddings = table("out/e.parquet")
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows) and len(rows) == 8
    known = {row["file"]: (row["kind"], row["collection"], row["label"], row["subject"]) for row in rows}
    assert known["ct/0.npy"] == ("volume", "ct", "sick", "anna") and known["mr/1.npy"] == ("volume", "mr", "", "")
    assert known["ct/7.png"] == ("picture", "ct", "", "")
    model = load_model(weights)
    for row, embedding in zip(rows, embeddings):
        if row["kind"] == "picture":
            expected = model.encode_slices([np.asarray(Image.open(f"scans/{row['file']}"))])
        else:
            expected = model.encode_volumes([read_volume(f"scans/{row['file']}")])
        np.testing.assert_allclose(embedding, expected[0].numpy(), rtol=1e-4, atol=1e-5)


def test_slices_are_rows_whose_mean_is_the_volume_after_stage_1(here):
    run("scans", "--weights", "image.pth", "--output", "v.npy")
    run("scans", "--weights", "image.pth", "--output", "s.npy", "--what", "slices")
    (volumes, of_volumes), (slices, of_slices) = table("v.npy"), table("s.npy")
    assert np.array_equal(of_slices, np.load("s.npy"))
    for row, embedding in zip(volumes, of_volumes):
        if row["kind"] == "picture":
            continue
        own = [place for place, other in enumerate(slices) if other["file"] == row["file"]]
        assert [slices[place]["slice"] for place in own] == list(range(read_volume(f"scans/{row['file']}").shape[0]))
        mean = of_slices[own].mean(0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), embedding, rtol=1e-4, atol=1e-5)


def test_pixels_of_at_most_two_batches_are_held(here, monkeypatch):
    alive, most, batches, embed_batch = weakref.WeakSet(), [], [], embed.embed_batch

    def watched(batch, *rest):
        if batch["volumes"]:
            alive.add(batch["volumes"]["slices"])
        batches.append(len(batch["files"]))
        most.append(len(alive))
        return embed_batch(batch, *rest)

    monkeypatch.setattr(embed, "embed_batch", watched)
    run("scans", "--weights", "joint.pth", "--output", "e.npy", "--batch_size", 1)
    assert batches == [1] * 8 and max(most) <= 2


def test_a_bad_file_ends_it_with_its_name_or_is_left_out(here, capsys):
    np.save("scans/mr/bad.npy", np.full((9, 9, 4), np.nan))
    Path("scans/mr/worse.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"worse\.npy cannot be read .*--on_bad_file skip"):
        run("scans", "--weights", "joint.pth", "--output", "e.npy")
    Path("scans/mr/worse.npy").unlink()
    with pytest.raises(UserError, match=r"bad\.npy holds NaN .*--on_bad_file skip"):
        run("scans", "--weights", "joint.pth", "--output", "e.npy")
    assert not list(here.glob("*e.npy*")) and not list(here.glob("*e.csv*"))
    Path("scans/mr/worse.npy").write_bytes(b"nothing")
    run("scans", "--weights", "joint.pth", "--output", "e.npy", "--on_bad_file", "skip")
    said = capsys.readouterr().out
    assert "2 file(s) were left out" in said and "8 embeddings of 8 files" in said
    assert len(np.load("e.npy")) == 8
    with pytest.raises(UserError, match=r"None of the 1 files of scans/mr/worse\.npy can be read"):
        run("scans/mr/worse.npy", "--weights", "joint.pth", "--output", "f.npy", "--on_bad_file", "skip")


@pytest.mark.parametrize("skip", [[], ["--on_bad_file", "skip"]])
def test_a_file_that_kills_the_process_that_reads_it_is_named_with_code_2_and_nothing_is_written(
    here, monkeypatch, capsys, skip
):
    parts = AnyFiles._parts

    def deadly(files, source):
        if source.name == "mr/3.npy":
            os.kill(os.getpid(), signal.SIGKILL)
        return parts(files, source)

    monkeypatch.setattr(AnyFiles, "_parts", deadly)
    with pytest.raises(SystemExit) as stop, speaking_to_people():
        run("scans", "--weights", "joint.pth", "--output", "e.npy", "--workers", 1, "--batch_size", 2, *skip)
    said = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert said.startswith("error: a loader process was ended (SIGKILL) while it read scans/mr/3.npy; either the memory")
    assert not list(here.glob("*e.npy*")) and not list(here.glob("*e.csv*"))


def test_similar_cases_are_of_the_same_kind_and_of_other_subjects(here, capsys):
    run("scans", "--weights", "joint.pth", "--output", "e.parquet")
    rows, embeddings = table("e.parquet")
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    asked = next(place for place, row in enumerate(rows) if row["file"] == "ct/0.npy")
    others = [p for p, row in enumerate(rows) if row["kind"] == "volume" and row["file"] not in ("ct/0.npy", "ct/2.npy")]
    expected = [rows[p]["file"] for p in sorted(others, key=lambda p: -(unit[p] @ unit[asked]))]
    capsys.readouterr()
    run("--query", "ct/0.npy", "--among", "e.parquet")  # needs no weights
    said = capsys.readouterr().out
    assert [line.split("│")[2].strip() for line in said.splitlines() if line.startswith("│")] == expected
    np.save("new.npy", np.load("scans/mr/3.npy"))
    run("--query", "new.npy", "--among", "e.parquet", "--weights", "joint.pth", "--nearest", 2)
    first = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    assert first.split("│")[1].strip() == "1.0000" and "mr/3.npy" in first


def test_of_a_volume_among_slices_the_middle_one_is_asked(here, capsys):
    run("scans", "--weights", "joint.pth", "--output", "s.parquet", "--what", "slices")
    capsys.readouterr()
    run("--query", "ct/4.npy", "--among", "s.parquet", "--nearest", 3)
    said = capsys.readouterr().out
    assert "most like ct/4.npy, slice 4" in said and len([line for line in said.splitlines() if line.startswith("│")]) == 3


def test_what_does_not_go_together_is_one_sentence(here):
    run("scans", "--weights", "joint.pth", "--output", "e.parquet")
    write_joint(here / "other.pth", seed=1)
    for words, says in [
        ([], "Name a folder and weights"),
        (["scans"], "Name a folder and weights"),
        (["scans", "--weights", "joint.pth", "--output", "e.parquet"], "is there already; .*--overwrite"),
        (["scans", "--weights", "joint.pth", "--output", "e.txt"], r"ends in neither \.parquet nor \.npy"),
        (["--query", "ct/0.npy"], "Name a case and embeddings to search"),
        (["--query", "none.npy", "--among", "e.parquet"], "neither a file nor the name of one in e.parquet"),
        (["--query", "scans/ct/0.npy", "--among", "e.parquet"], "name the weights joint.pth with --weights"),
        (["--query", "scans/ct/0.npy", "--among", "e.parquet", "--weights", "other.pth"], "made with other weights"),
        (["--query", "ct/7.png", "--among", "e.parquet"], "holds no other picture"),
    ]:
        with pytest.raises(UserError, match=says):
            run(*words)
