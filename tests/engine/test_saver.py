import errno
import os

import pytest
import torch

from engine import saver
from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.saver import Saver


def full(*words):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_changes_after_the_call_is_saved_as_it_was(tmp_path):
    weights, writer = torch.zeros(1000), Saver(tmp_path)
    writer.save(3, {"model": {"w": weights}, "position": {"step": 3}})
    weights += 1
    writer.wait()
    assert load_checkpoint(tmp_path)["model"]["w"].sum() == 0 and writer.said() is None


def test_a_full_disk_is_told_once_and_leaves_the_state_before(tmp_path, monkeypatch):
    writer = Saver(tmp_path)
    writer.save(1, {"model": torch.zeros(3), "position": {}})
    writer.wait()
    monkeypatch.setattr(os, "fsync", full)
    writer.save(2, {"model": torch.ones(3), "position": {}})
    writer.wait()
    monkeypatch.undo()
    assert "step 2 could not be saved" in (said := writer.said()) and "No space left" in said and writer.said() is None
    assert load_checkpoint(tmp_path)["model"].sum() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step-000001"]


def test_a_bug_in_saving_is_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "save_checkpoint", lambda *words: 1 / 0)
    writer = Saver(tmp_path)
    writer.save(1, {})
    with pytest.raises(ZeroDivisionError):
        writer.wait()


def test_what_failed_is_known_until_a_state_is_on_the_disk_again(tmp_path, monkeypatch):
    writer = Saver(tmp_path)
    with monkeypatch.context() as disk:
        disk.setattr(saver, "save_checkpoint", full)
        writer.save(1, {})
        writer.wait()
    assert writer.said() and "step 1 could not be saved" in writer.failed
    writer.save(2, {})
    writer.wait()
    assert writer.failed is None and writer.said() is None


def test_on_a_full_disk_the_older_of_two_states_makes_room_and_the_newest_stays(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"model": step, "position": {}}, keep_copy=step == 1)
    plain = os.fsync

    def room_for_two(handle):
        if len(list(tmp_path.glob("step-*"))) > 3:
            full()
        plain(handle)

    monkeypatch.setattr(os, "fsync", room_for_two)
    save_checkpoint(tmp_path, 4, {"model": 4, "position": {}})
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000001", "step-000003", "step-000004"]
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 5, {"model": 5, "position": {}})
    assert load_checkpoint(tmp_path)["model"] == 4
