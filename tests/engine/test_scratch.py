import atexit
import os

import pytest

from engine.errors import speaking_to_people
from engine.scratch import Scratch


def test_files_go_with_the_process_that_made_them(tmp_path, monkeypatch):
    at_the_end = []
    monkeypatch.setattr(atexit, "register", at_the_end.append)
    path = Scratch(tmp_path).make("pictures", 100)
    assert path.stat().st_size == 100
    for act in at_the_end:
        act()
    assert not path.exists()


def test_a_disk_without_room_is_told_by_whichever_process_has_it(tmp_path, monkeypatch, capsys):
    def full(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(SystemExit), speaking_to_people():
        Scratch(tmp_path).make("pictures", 2**30)
    assert "pictures cannot be made (No space left on device: 1.0 GiB are needed)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
