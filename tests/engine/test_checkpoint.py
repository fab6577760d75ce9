import contextlib
import errno
import json
import os
import random
import shutil
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import checkpoint
from engine.checkpoint import _write_manifest, damage, load_checkpoint, save_checkpoint, sha256
from engine.errors import UserError


def state(number):
    return {"model": {"w": torch.full((3,), float(number))}, "position": {"step": number}}


def test_the_newest_whole_state_is_loaded(tmp_path):
    for number in (1, 2, 3):
        save_checkpoint(tmp_path, number, state(number))
    assert load_checkpoint(tmp_path)["position"]["step"] == 3
    assert (tmp_path / "last").read_text(encoding="utf-8") == "step-000003"
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-000002", "step-000003"]


def test_steps_are_numbers_also_beyond_a_million(tmp_path):
    for number in (999_998, 999_999, 1_000_000):
        save_checkpoint(tmp_path, number, state(number))
    assert load_checkpoint(tmp_path)["position"]["step"] == 1_000_000
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-1000000", "step-999999"]


def test_kept_copies_stay(tmp_path):
    for number in range(1, 6):
        save_checkpoint(tmp_path, number, state(number), keep_copy=number == 2)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-000002", "step-000004", "step-000005"]


@pytest.mark.parametrize("place", [10, 200, -20])
def test_a_flipped_bit_is_found_and_the_state_before_is_taken(tmp_path, place, capsys):
    for number in (1, 2):
        save_checkpoint(tmp_path, number, state(number))
    path = tmp_path / "step-000002/model.pt"
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 4
    path.write_bytes(damaged)
    assert load_checkpoint(tmp_path)["position"]["step"] == 1
    assert (tmp_path / "step-000002.bad").is_dir() and "step-000002 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["no manifest", "cut manifest", "missing file"])
def test_other_damage_is_found_too(tmp_path, how):
    for number in (1, 2):
        save_checkpoint(tmp_path, number, state(number))
    manifest = tmp_path / "step-000002/manifest.json"
    if how == "no manifest":
        manifest.unlink()
    elif how == "cut manifest":
        manifest.write_text(manifest.read_text(encoding="utf-8")[:40], encoding="utf-8")
    else:
        (tmp_path / "step-000002/model.pt").unlink()
    assert load_checkpoint(tmp_path)["position"]["step"] == 1


def test_a_half_written_folder_is_not_looked_at(tmp_path):
    save_checkpoint(tmp_path, 1, state(1))
    (tmp_path / "step-000002.tmp").mkdir()
    assert load_checkpoint(tmp_path)["position"]["step"] == 1


def test_there_may_be_none(tmp_path):
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_the_manifest_names_every_file(tmp_path):
    folder = save_checkpoint(tmp_path, 7, state(7))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert sorted(manifest["files"]) == ["model.pt", "position.pt"] and manifest["format_version"] == 2


def test_no_flipped_bit_and_no_cut_is_loaded(tmp_path, capsys):
    rng = random.Random(0)
    for number in (1, 2):
        save_checkpoint(tmp_path, number, state(number))
    newest, safe = tmp_path / "step-000002", tmp_path / "safe"
    shutil.copytree(newest, safe)
    for trial in range(1000):
        path = rng.choice(sorted(newest.iterdir()))
        content = bytearray(path.read_bytes())
        if trial % 10:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        if damage(newest) is None:  # in JSON a blank may be another blank
            assert json.loads(content) == json.loads((safe / path.name).read_bytes())
        path.write_bytes((safe / path.name).read_bytes())
    assert damage(newest) is None


def test_where_nothing_is_whole_nothing_is_started_over_in_silence(tmp_path):
    save_checkpoint(tmp_path, 1, state(1))
    (tmp_path / "step-000001/model.pt").write_bytes(b"")
    with pytest.raises(UserError, match="no state that is whole"):
        load_checkpoint(tmp_path)


def test_states_of_the_first_version_without_a_digest_are_read(tmp_path):
    folder = save_checkpoint(tmp_path, 1, state(1))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (folder / "manifest.json").write_text(
        json.dumps({k: v for k, v in manifest.items() if k != "digest"} | {"format_version": 1}), encoding="utf-8"
    )
    assert load_checkpoint(tmp_path)["position"]["step"] == 1


def test_a_manifest_that_names_files_of_other_folders_is_damage(tmp_path):
    folder = save_checkpoint(tmp_path / "a", 1, state(1))
    (tmp_path / "stranger.pt").write_bytes((folder / "model.pt").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"] = {"../../stranger.pt": manifest["files"]["model.pt"]}
    _write_manifest(folder / "manifest.json", {name: manifest[name] for name in ("step", "keep", "files")})
    assert "other folders" in damage(folder)


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=9))
def test_a_manifest_of_any_json_is_found_whole_or_damaged(tmp_path_factory, anything):
    folder = save_checkpoint(tmp_path_factory.mktemp("run"), 1, state(1))
    for content in (anything, {"format_version": 1, "files": anything}, {"format_version": anything, "files": {}}):
        (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
        with contextlib.suppress(UserError):
            assert damage(folder) is None or isinstance(damage(folder), str)


def test_an_old_copy_with_a_damaged_manifest_stays_and_saving_goes_on(tmp_path):
    for number in range(1, 5):
        save_checkpoint(tmp_path, number, state(number), keep_copy=number == 1)
        (tmp_path / "step-000001/manifest.json").write_text("[" * 100_000, encoding="utf-8")
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-000001", "step-000003", "step-000004"]


@pytest.mark.parametrize(
    "error", [*(OSError(n, os.strerror(n)) for n in (errno.EIO, errno.ESTALE, errno.EACCES)), MemoryError()]
)
def test_what_cannot_be_read_for_now_is_no_damage(tmp_path, monkeypatch, error):
    for number in (1, 2):
        save_checkpoint(tmp_path, number, state(number))

    def fails(path):
        raise error

    with monkeypatch.context() as disk:
        disk.setattr(checkpoint, "sha256", fails)
        with pytest.raises(UserError, match=r"cannot be read .*; nothing was moved, give the same command again"):
            load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path)["position"]["step"] == 2


def test_only_who_may_sets_damaged_states_aside(tmp_path):
    for number in (1, 2):
        save_checkpoint(tmp_path, number, state(number))
    (tmp_path / "step-000002/model.pt").write_bytes(b"cut")
    assert load_checkpoint(tmp_path, set_aside=False)["position"]["step"] == 1 and (tmp_path / "step-000002").exists()


def change(folder, **files):
    """Other files, under a manifest that is true to them."""
    _write_manifest(folder / "manifest.json", {"step": 1, "keep": False, "files": files})


def test_packed_tensors_are_found_before_they_fill_the_memory(tmp_path):
    folder = save_checkpoint(tmp_path, 1, {**state(1), "model": torch.zeros(2**20)})
    plain, packed = folder / "model.pt", folder / "packed"
    with zipfile.ZipFile(plain) as of, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as to:
        for entry in of.namelist():
            to.writestr(entry, of.read(entry))
    os.replace(packed, plain)
    change(folder, **{name: sha256(folder / name) for name in ("model.pt", "position.pt")})
    assert "model.pt is packed" in damage(folder)


def test_a_manifest_that_leaves_out_the_model_is_damage(tmp_path):
    folder = save_checkpoint(tmp_path, 1, state(1))
    change(folder, **{"position.pt": sha256(folder / "position.pt")})
    assert damage(folder) == "manifest.json names no model.pt"
