import json
import shutil
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.logbook import Logbook


@pytest.fixture
def logbook(tmp_path):
    (tmp_path / "run").mkdir()
    logbook = Logbook(tmp_path / "run/metrics.jsonl", tmp_path / "events", "title", 0, 10)
    yield logbook
    logbook.close()


def test_its_length_is_that_of_whole_lines(logbook):
    logbook.note("left_out", {"a": 1})
    assert logbook.length() == logbook.metrics.stat().st_size
    assert json.loads(logbook.metrics.read_text(encoding="utf-8")) == {"kind": "left_out", "step": 0, "a": 1}


def test_a_folder_that_cannot_be_made_again_is_said_once_and_nothing_stops(logbook, capsys):
    logbook.note("left_out", {})
    before = logbook.length()
    shutil.rmtree(logbook.metrics.parent)
    assert logbook.length() == logbook.length() == before > 0
    logbook.step(1, {"loss": 1.0, "data_wait": 0.0})
    assert capsys.readouterr().out.count("metrics.jsonl could not be written (No such file or directory)") == 1


def test_a_folder_of_events_that_cannot_be_made_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"/dev/null/x cannot be written \(Not a directory\); choose another --log_dir"):
        Logbook(tmp_path / "metrics.jsonl", Path("/dev/null/x"), "title", 0, 10)
