import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest

from engine.config import Config
from engine.errors import UserError
from engine.folder import RunFolder


@pytest.fixture
def used(tmp_path):
    """A folder that a run of two processes, with four items each, has begun."""
    folder = RunFolder(tmp_path / "run", "script")
    folder.take(overwrite=False)
    folder.begin(Config(batch_size=4), world=2)
    folder.leave()
    return folder


def ask(folder, world, **constants):
    config = Config(**constants)
    folder.heed_launcher(config)
    folder.refuse_what_would_be_lost(config, folder.path / "weights.pth", world)
    return config


@pytest.mark.parametrize("world, batch", [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_the_batch_of_all_processes_stays(used, world, batch):
    assert ask(used, world, batch_size=4).batch_size == ask(used, world, batch_size=batch).batch_size == batch


def test_another_batch_is_refused_with_the_one_that_would_do(used):
    with pytest.raises(UserError, match="batch_size of all processes was 8, is 6: use --batch_size 8"):
        ask(used, 1, batch_size=6)
    with pytest.raises(UserError, match="was 8, is 12: use another number of processes"):
        ask(used, 3, batch_size=4)


def test_paths_and_how_often_something_is_saved_may_change_and_nothing_else(used):
    ask(used, 2, batch_size=4, pretrained_path="elsewhere", workers=7, checkpoint_minutes=1.0, log_dir="x")
    with pytest.raises(UserError, match=r"wd was 1e-06, is 0\.1; seed was 31, is 5"):
        ask(used, 2, batch_size=4, seed=5, wd=0.1)
    ask(used, 2, batch_size=4, seed=5, resume="anyway")
    with pytest.raises(UserError, match="holds a run; choose another --dump_path"):
        ask(used, 2, batch_size=4, resume="never")


def test_overwriting_counts_for_the_first_start_of_a_launcher_only(used, monkeypatch):
    assert ask(used, 2, batch_size=4, overwrite=True).overwrite
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    used.take(overwrite=True)
    used.begin(Config(batch_size=4, overwrite=True), world=2)
    assert ask(used, 2, batch_size=4, overwrite=True).overwrite
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not ask(used, 2, batch_size=4, overwrite=True).overwrite
    used.leave()


def test_overwriting_removes_what_runs_write_and_nothing_else(used):
    own = ["results.json", "cases.csv", "best_median_worst_valid.png", "test_truth.json", "test_boxes.png", "reliability.png"]
    for name in (*own, "metrics.jsonl", "notes.txt", "mine.png", "seed-2/notes.txt", "seed-x/results.json"):
        (used.path / name).parent.mkdir(exist_ok=True)
        (used.path / name).write_text("{}", encoding="utf-8")
    for seed in (1, 2):
        inside = RunFolder(used.path / f"seed-{seed}", "script")
        inside.take(overwrite=False)
        inside.begin(Config(), world=1)
        inside.leave()
    used.take(overwrite=True)
    left = {path.relative_to(used.path).as_posix() for path in used.path.rglob("*") if path.is_file()}
    assert left == {"notes.txt", "mine.png", "seed-2/notes.txt", "seed-x/results.json", "lock"}
    assert not (used.path / "seed-1").exists()
    used.leave()


def test_means_over_a_seed_that_is_overwritten_go_and_those_of_others_stay(tmp_path):
    for seeds, stays in (([1, 2], False), ([2, 3], True)):
        (tmp_path / "results.json").write_text(json.dumps({"test": {"seeds": seeds}}), encoding="utf-8")
        folder = RunFolder(tmp_path / "seed-1", "script")
        folder.take(overwrite=True)
        folder.leave()
        assert (tmp_path / "results.json").exists() == stays


def test_a_removed_folder_is_made_again_with_its_identity(used):
    before = used.identity()["id"]
    assert used.mended(Config(), 2, before) is None
    shutil.rmtree(used.path)
    assert "was removed; it is made again" in used.mended(Config(), 2, before)
    assert json.loads((used.path / "run.json").read_text(encoding="utf-8"))["id"] == before


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"run cannot be written \(Not a directory\)"):
        RunFolder(tmp_path / "file" / "run", "script").take(overwrite=False)


def test_another_process_finds_the_folder_taken_until_it_is_left(used):
    words = f"from engine.folder import *; RunFolder(Path({str(used.path)!r}), 's').take(False)"
    used.take(overwrite=False)
    other = subprocess.run([sys.executable, "-c", words], capture_output=True, encoding="utf-8")
    assert "is in use by another run (process" in other.stderr
    used.leave()
    assert subprocess.run([sys.executable, "-c", words], capture_output=True).returncode == 0


def test_metrics_are_cut_but_never_filled_up(used):
    used.metrics.write_text("0123456789", encoding="utf-8")
    used.cut_metrics(20)
    assert used.metrics.read_text(encoding="utf-8") == "0123456789"
    used.cut_metrics(4)
    assert used.metrics.read_text(encoding="utf-8") == "0123"


def test_taking_a_folder_changes_nothing_of_the_run_in_it_until_it_begins(used):
    used.mark_preempted("stopped.")
    before = {path.name: path.read_bytes() for path in used.path.iterdir() if path.name != "lock"}
    used.take(overwrite=False)
    assert {path.name: path.read_bytes() for path in used.path.iterdir() if path.name != "lock"} == before
    used.begin(Config(batch_size=4, resume="anyway"), world=2)
    assert not (used.path / "PREEMPTED").exists()
    assert "resume: auto" in (used.path / "config.yaml").read_text(encoding="utf-8")  # else --config would ask for it again
    used.leave()


def test_what_a_killed_process_was_writing_goes_when_the_folder_is_taken(used):
    (used.checkpoints / "step-000003.tmp").mkdir(parents=True)
    (used.checkpoints / "step-000002").mkdir()
    used.take(overwrite=False)
    assert [path.name for path in used.checkpoints.iterdir()] == ["step-000002"]
    used.leave()


def test_what_cannot_be_overwritten_is_said(used, monkeypatch):
    used.checkpoints.mkdir()

    def refuse(path, *more):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(UserError, match=r"run cannot be written \(Device or resource busy\)"):
        used.take(overwrite=True)
    used.leave()


def test_a_folder_that_was_removed_is_locked_anew_and_one_that_another_run_took_is_left_alone(used):
    run_id = used.identity()["id"]
    used.take(overwrite=False)
    shutil.rmtree(used.path)
    assert "it is made again" in used.mended(Config(), 2, run_id) and used._lock_is_there()
    (used.path / "lock").unlink()
    assert not used._lock_is_there() and used.mended(Config(), 2, run_id) is None and used._lock_is_there()
    shutil.rmtree(used.path)
    other = RunFolder(used.path, "script")
    other.take(overwrite=False)
    other.begin(Config(), 1)
    other.leave()
    with pytest.raises(UserError, match="was removed, and holds another run now"):
        used.mended(Config(), 2, run_id)
    assert used.identity()["id"] != run_id


def test_a_file_system_without_locks_is_no_other_run(used, monkeypatch, capsys):
    def refuse(*words):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    used.take(overwrite=False)
    assert "cannot be locked (No locks available)" in capsys.readouterr().err
    used.begin(Config(batch_size=4), 2)


def test_a_launcher_that_starts_again_may_still_replace_the_weights_that_it_was_told_to(used, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    used.take(overwrite=True)
    used.begin(Config(batch_size=4, overwrite=True), world=2)
    (used.path / "weights.pth").write_bytes(b"of another run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    ask(used, 2, batch_size=4, overwrite=True)
    with pytest.raises(UserError, match="written by another run"):
        ask(used, 2, batch_size=4)
    used.leave()


def test_constants_and_batch_are_compared_with_the_state_where_the_files_that_say_them_are_gone(used):
    state = used.compared(Config(batch_size=4)), {"batch_size": 8}
    ask(used, 2, batch_size=4)
    used.refuse_unlike(Config(batch_size=4, wd=0.5), *state, world=2)  # config.yaml has been asked
    (used.path / "run.json").unlink()
    (used.path / "config.yaml").unlink()
    config = ask(used, 2, batch_size=4, wd=0.5)
    with pytest.raises(UserError, match=r"another configuration \(wd was 1e-06, is 0\.5\)"):
        used.refuse_unlike(config, *state, world=2)
    with pytest.raises(UserError, match="batch_size of all processes was 8, is 4: use --batch_size 8"):
        used.refuse_unlike(Config(batch_size=4), *state, world=1)
    used.refuse_unlike(Config(batch_size=4), *state, world=2)
    used.refuse_unlike(Config(batch_size=1), {}, {}, world=2)  # a state of an earlier format


def test_two_runs_of_a_launcher_without_a_name_are_two(used, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    used.take(overwrite=False)
    used.begin(Config(batch_size=4), world=2)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not ask(used, 2, batch_size=4, overwrite=True).overwrite
    monkeypatch.setattr(os, "getppid", os.getpid)
    assert ask(used, 2, batch_size=4, overwrite=True).overwrite
    used.leave()
