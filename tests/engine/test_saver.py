import errno
import os

import pytest
import torch

from engine import saver
from engine.checkpoint import load_checkpoint
from engine.saver import Saver


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

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

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
