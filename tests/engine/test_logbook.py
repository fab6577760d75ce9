import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.errors import UserError
from engine.logbook import Logbook

SPEED = {"data_wait": 0.031, "items_per_second": 41.26, "memory_gb": 1.234}


@pytest.fixture
def logbook(tmp_path):
    (tmp_path / "run").mkdir()
    logbook = Logbook(tmp_path / "run/metrics.jsonl", tmp_path / "events", "title", 0, 10, "pictures")
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
    logbook.step(1, {"loss": 1.0, **SPEED})
    assert capsys.readouterr().out.count("metrics.jsonl could not be written (No such file or directory)") == 1


def test_a_folder_of_events_that_cannot_be_made_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"/dev/null/x cannot be written \(Not a directory\); choose another --log_dir"):
        Logbook(tmp_path / "metrics.jsonl", Path("/dev/null/x"), "title", 0, 10)


def test_the_progress_line_tells_loss_clusters_speed_waiting_and_memory(logbook):
    logbook.step(1, {"loss": 2.3456, "images_clusters_used": 27, "lr": 1e-3, **SPEED})
    assert logbook.bar.postfix == "loss 2.346, clusters 27 images, 41.3 pictures/s, 3% waiting for data, 1.2 GB"
    logbook.step(2, {"loss": 2.3456, **SPEED})
    assert logbook.bar.postfix.startswith("loss 2.346, 41.3 pictures/s")


def test_an_epoch_is_a_line_of_its_figures_and_its_speed(logbook, capsys):
    speed = {"seconds": 20.0, "data_wait_seconds": 5.0, "items_per_second": 41.26, "memory_gb": 1.234}
    logbook.epoch(7, 1, 3, {"loss": 2.5, **speed})
    assert capsys.readouterr().out.strip() == ("epoch 2/3  20.0 s  loss 2.5  (41.3 pictures/s, 25% waiting for data, 1.2 GB)")


def test_tensorboard_has_curves_pictures_and_embeddings(logbook, tmp_path):
    logbook.step(1, {"loss": 2.5, **SPEED})
    logbook.picture("views", np.full((20, 30), 7, np.uint8), 3)
    logbook.picture("map", np.zeros((20, 30, 3), np.uint8), 3)
    logbook.embeddings(np.eye(4, dtype=np.float32), [[str(i), "a"] for i in range(4)], ["file", "folder"], 3)
    logbook.events.flush()
    events = EventAccumulator(str(tmp_path / "events"), {"images": 0, "scalars": 0}).Reload()
    assert {f"step/{name}" for name in ("loss", *SPEED)} <= set(events.Tags()["scalars"])
    assert [(of.step, of.height, of.width) for name in ("views", "map") for of in events.Images(name)] == [(3, 20, 30)] * 2
    (folder,) = (tmp_path / "events").glob("00003/embeddings*")
    assert (folder / "metadata.tsv").read_text(encoding="utf-8").splitlines()[:2] == ["file\tfolder", "0\ta"]
