"""What a run does when its folders vanish or cannot be written, and when a loader process is killed under it."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

import engine.saver
import engine.weights
import ssl_deepcluster_2D
import ssl_swav_2D
from engine.checkpoint import load_checkpoint
from engine.config import parse
from engine.errors import UserError
from engine.run import Run, launch
from losses.memory_bank import MemoryBank
from tests.scripts.conftest import make_data, run
from tests.scripts.six_scripts import script_flags

DRIVER = Path(__file__).with_name("disturbed.py")
COMMON = "--arch resnet18 --precision fp32 --epochs 3 --warmup_epochs 0 --workers 0 --checkpoint_minutes 1e-5".split()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path, volumes=1)
    return tmp_path


def train(data, *more):
    config = parse(ssl_swav_2D.SwavImageConfig, [*COMMON, *script_flags("swav", "2D", data, "4"), *more])
    return ssl_swav_2D.main(config)


def after_step(monkeypatch, step, act):
    plain = Run.update

    def update(run, *args, **more):
        plain(run, *args, **more)
        if run.step == step:
            act()

    monkeypatch.setattr(Run, "update", update)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's own thread
def test_a_folder_that_is_removed_is_made_again_and_the_run_ends_well(here, monkeypatch, capsys):
    def remove() -> None:
        while Path("runs").exists():  # a state may be written to it at the same time
            shutil.rmtree("runs", ignore_errors=True)

    after_step(monkeypatch, 4, remove)
    train(here)
    assert "was removed; it is made again" in capsys.readouterr().out
    assert load_checkpoint(here / "runs/ssl_swav_2D/checkpoints")["position"]["step"] == 9
    assert (here / "weights/resnet_swav2D.pth").exists()
    lines = [json.loads(line) for line in Path("runs/ssl_swav_2D/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2]
    train(here)
    assert "nothing is left to train" in capsys.readouterr().out


def test_a_folder_of_weights_that_cannot_be_made_is_refused_before_the_training(here):
    Path("weights").write_text("a file", encoding="utf-8")
    with pytest.raises(UserError, match=r"weights/resnet_swav2D\.pth cannot be written \(File exists\)"):
        train(here)
    assert not Path("runs/ssl_swav_2D/checkpoints").exists()


def test_weights_that_cannot_be_written_at_the_end_are_written_by_the_same_command(here, monkeypatch):
    def full(path, write):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(engine.weights, "write_atomically", full)
        with pytest.raises(UserError, match=r"could not be written \(No space left on device\)"):
            train(here)
    train(here)
    assert Path("weights/resnet_swav2D.pth").exists()


def test_a_loader_process_that_is_killed_is_one_sentence_and_the_state_stays(here):
    words = [*COMMON, *script_flags("swav", "2D", here, "4"), "--workers", "1", "--epochs", "200", "--probed_files", "0"]
    done = run(DRIVER, "ssl_swav_2D", here, "SIGKILL@loaders", 0, 4, *words, cwd=here)
    assert done.returncode == 2 and "error: a loader process was ended (SIGKILL)" in done.stderr
    assert load_checkpoint(here / "runs/ssl_swav_2D/checkpoints")["position"]["step"] >= 2


@pytest.mark.parametrize(
    "where", ["start", *(pytest.param(w, marks=pytest.mark.slow) for w in ("listing", "clustering", "finish"))]
)
def test_a_signal_outside_of_steps_leaves_a_note_for_the_scheduler_and_no_scratch_file(here, monkeypatch, capsys, where):
    owner, name = {
        "start": (engine.run, "join_group"),
        "listing": (ssl_deepcluster_2D, "find_pictures"),
        "clustering": (MemoryBank, "cluster_heads"),
        "finish": (engine.run, "write_weights"),
    }[where]
    plain, note = getattr(owner, name), Path("runs/ssl_deepcluster_2D/PREEMPTED")

    def stopped(*args, **more):
        os.kill(os.getpid(), signal.SIGUSR1)
        return plain(*args, **more)

    words = [*COMMON, *script_flags("deepcluster", "2D", here, "4"), "--probed_files", "0", "--image_store", "on"]
    monkeypatch.setattr("sys.argv", ["ssl_deepcluster_2D.py", *words, "--epochs", "2"])
    with monkeypatch.context() as disturbed:
        disturbed.setattr(owner, name, stopped)
        with pytest.raises(SystemExit) as stop:
            launch(ssl_deepcluster_2D.DeepClusterImageConfig, ssl_deepcluster_2D.main)
    assert stop.value.code == 75 and "stopped by SIGUSR1" in capsys.readouterr().err
    assert "the same command goes on" in note.read_text(encoding="utf-8")
    assert not list(note.parent.glob("pictures-*"))
    launch(ssl_deepcluster_2D.DeepClusterImageConfig, ssl_deepcluster_2D.main)
    assert not note.exists() and Path("weights/resnet_deepcluster2D.pth").exists()


@pytest.mark.slow
def test_a_command_that_is_refused_leaves_the_run_as_it_was(here):
    train(here, "--epochs", "1")
    folder = here / "runs/ssl_swav_2D"
    (folder / "PREEMPTED").write_text("stopped.", encoding="utf-8")
    before = {name: (folder / name).read_bytes() for name in ("config.yaml", "run.json", "PREEMPTED", "metrics.jsonl")}
    with pytest.raises(UserError, match="holds a run of another network or optimiser"):
        train(here, "--epochs", "2", "--arch", "resnet34", "--resume", "anyway")
    assert before == {name: (folder / name).read_bytes() for name in before}
    (folder / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"another configuration \(wd was 1e-06, is 0\.5\)"):
        train(here, "--epochs", "2", "--wd", "0.5")
    train(here, "--epochs", "2")


@pytest.mark.slow
def test_a_stop_between_epochs_whose_state_is_not_on_the_disk_does_not_say_that_it_is(here, monkeypatch, capsys):
    def full(*words):
        os.kill(os.getpid(), signal.SIGTERM)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine.saver, "save_checkpoint", full)
    words = [*COMMON, *script_flags("swav", "2D", here, "4"), "--checkpoint_minutes", "0", "--probed_files", "0"]
    monkeypatch.setattr("sys.argv", ["ssl_swav_2D.py", *words])
    with pytest.raises(SystemExit) as stop:
        launch(ssl_swav_2D.SwavImageConfig, ssl_swav_2D.main)
    said = capsys.readouterr().err
    assert (
        stop.value.code == 2
        and "stopped by SIGTERM" in said
        and "but the state of step" in said
        and "could not be saved" in said
    )
    assert "the same command goes on" not in said
