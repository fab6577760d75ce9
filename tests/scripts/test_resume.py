"""A run that is stopped, killed, moved to other processes or started twice loses nothing and repeats nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from engine.checkpoint import load_checkpoint
from tests.scripts.conftest import ROOT, environment, make_data, run
from tests.scripts.six_scripts import COMMON, script_flags

DRIVER = Path(__file__).with_name("disturbed.py")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """24 pictures: 6 steps an epoch of global batches of 4."""
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path, volumes=4, images=24)
    (tmp_path / "notes").mkdir()
    return tmp_path


def flags(script, data, batch, *more):
    method = "swav" if "swav" in script else "deepcluster"
    words = [*COMMON, *script_flags(method, "2D", data, str(batch)), "--epochs", "2", "--checkpoint_minutes", "1e-5"]
    return [*words, "--probed_files", "0", "--pretrained_path", "weights", *more]


def torchrun(processes, *more):
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *more]


def seen(folder, epoch):
    return Counter((folder / f"notes/{epoch}.txt").read_text(encoding="utf-8").split())


def slow(*values):
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def weights(path):
    content = torch.load(path, weights_only=True)
    return content.get("model", content)


@pytest.mark.parametrize(
    "script",
    [
        "ssl_deepcluster_2D",
        *slow("ssl_swav_2D", "mask_swav_3D", "mask_deepcluster_3D", "ssl_swav_3D", "ssl_deepcluster_3D"),
    ],
)
def test_a_run_that_is_killed_ends_with_the_bits_of_one_that_was_not(script):
    often = ["--kills", 2, "--files", 12] if script == "ssl_deepcluster_2D" else ["--kills", 6]
    done = run(ROOT / "benchmarks/kill_test.py", "--scripts", script, *often, "--seed", int(time.time()), cwd=ROOT)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].endswith("nothing"), done.stdout + done.stderr[-3000:]


@pytest.mark.parametrize("name", ["SIGTERM", *slow("SIGINT", "SIGUSR1", "SIGUSR2")])
def test_a_signal_stops_after_the_step_with_code_75_and_the_same_command_goes_on(here, name):
    words = flags("ssl_swav_2D", here, 4, "--workers", "1", "--checkpoint_minutes", "0")
    done = run(DRIVER, "ssl_swav_2D", here / "notes", name, 0, 2, *words, cwd=here)
    assert done.returncode == 75 and f"stopped by {name} after step 2; the same command goes on" in done.stderr
    assert (
        "after step 2" in (here / "runs/ssl_swav_2D/PREEMPTED").read_text(encoding="utf-8") and "Traceback" not in done.stderr
    )
    done = run(DRIVER, "ssl_swav_2D", here / "notes", "nothing", 0, 0, *words, cwd=here)
    assert done.returncode == 0 and "going on at epoch 1, step 3 of 2 epochs" in done.stdout, done.stderr
    assert not (here / "runs/ssl_swav_2D/PREEMPTED").exists()
    for epoch in (0, 1):
        assert set(seen(here, epoch).values()) == {1} and len(seen(here, epoch)) == 24


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_between_epochs_leaves_the_note_too(here):
    words = flags("ssl_deepcluster_2D", here, 2, "--workers", "0", "--checkpoint_minutes", "0", "--epochs", "1")
    done = run(*torchrun(2), DRIVER, "ssl_deepcluster_2D", here / "notes", "SIGUSR1@clustering", 1, 0, *words, cwd=here)
    note = here / "runs/ssl_deepcluster_2D/PREEMPTED"
    assert done.returncode == 1 and "the same command goes on" in note.read_text(encoding="utf-8"), done.stderr[-3000:]
    done = run(*torchrun(2), DRIVER, "ssl_deepcluster_2D", here / "notes", "nothing", 0, 0, *words, cwd=here)
    assert done.returncode == 0 and not note.exists(), done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["ssl_swav_2D", "ssl_deepcluster_2D"])
def test_processes_may_become_one_four_and_two_and_every_item_is_seen_once_an_epoch(here, script):
    for processes, batch, step in [(2, 2, 2), (1, 2, 5), (4, 2, 8), (2, 2, 0)]:
        # the batch of a process is the one of the first start, and is dealt anew; a signal to one process stops all
        launcher = torchrun(processes) if processes > 1 else []
        what = "SIGTERM" if step else "nothing"
        words = flags(script, here, batch, "--workers", "0", "--checkpoint_minutes", "0")
        done = run(*launcher, DRIVER, script, here / "notes", what, processes - 1, step, *words, cwd=here)
        assert (here / f"runs/{script}/PREEMPTED").exists() == (step > 0), done.stderr[-2000:]
    for epoch in (0, 1):
        assert set(seen(here, epoch).values()) == {1} and len(seen(here, epoch)) == 24
    assert load_checkpoint(here / f"runs/{script}/checkpoints")["position"]["step"] == 12
    words = flags(script, here, 4, "--workers", "0", "--dump_path", "runs/whole", "--checkpoint_name", "whole.pth")
    (here / "other").mkdir()
    assert run(DRIVER, script, here / "other", "nothing", 0, 0, *words, cwd=here).returncode == 0
    a, b = weights(next((here / "weights").glob("resnet*"))), weights(here / "weights/whole.pth")
    # AdamW moves a weight whose gradient is rounding errors by a whole step; of all weights together little is left of that
    a, b = (torch.cat([of[name].double().flatten() for name in a if "running" not in name]) for of in (a, b))
    assert (a - b).norm() / a.norm() < 1e-7


@pytest.mark.slow
def test_a_signal_to_one_of_four_processes_brings_the_state_to_the_disk_within_a_step_and_a_save(here):
    words = flags("ssl_swav_2D", here, 1, "--workers", "0", "--checkpoint_minutes", "0", "--epochs", "3")
    done = run(*torchrun(4), DRIVER, "ssl_swav_2D", here / "notes", "SIGTERM", 2, 8, *words, cwd=here)
    assert "stopped by" in done.stderr, done.stderr[-3000:]
    folder = max((here / "runs/ssl_swav_2D/checkpoints").glob("step-*"))
    asked, saved = float((here / "notes/SIGTERM.txt").read_text(encoding="utf-8")), (folder / "manifest.json").stat().st_mtime
    lines = [json.loads(line) for line in (here / "runs/ssl_swav_2D/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    step = max(line["seconds"] for line in lines if line["kind"] == "epoch") / 6
    assert saved - asked < step + 5 + 1  # one second to save 100 MB
    assert load_checkpoint(folder.parent)["position"]["step"] in (8, 9)  # that step, or the next one; none is lost


@pytest.mark.slow
def test_a_batch_that_cannot_be_dealt_evenly_is_refused_with_the_flag_to_set(here):
    words = flags("ssl_swav_2D", here, 4, "--workers", "0")
    assert run(DRIVER, "ssl_swav_2D", here / "notes", "SIGTERM", 0, 1, *words, cwd=here).returncode == 75
    done = run(DRIVER, "ssl_swav_2D", here / "notes", "nothing", 0, 0, *words, "--batch_size", "3", cwd=here)
    assert done.returncode == 2 and "batch_size of all processes was 4, is 3: use --batch_size 4" in done.stderr


@pytest.mark.slow
def test_the_launcher_starts_a_run_again_after_a_process_died_and_two_nodes_do_as_one(here):
    ends = []
    for name, what, more in [("whole", "nothing", []), ("died", "SIGKILL", ["--max-restarts=1"])]:
        words = flags("ssl_swav_2D", here, 2, "--dump_path", f"runs/{name}", "--checkpoint_name", f"{name}.pth", "--overwrite")
        done = run(*torchrun(2, *more), DRIVER, "ssl_swav_2D", here / "notes", what, 1, 3, *words, "--workers", "0", cwd=here)
        assert done.returncode == 0, done.stderr[-3000:]
        ends.append(weights(here / f"weights/{name}.pth"))
    assert "going on at epoch 1, step" in done.stdout
    words = flags("ssl_swav_2D", here, 2, "--dump_path", "runs/nodes", "--checkpoint_name", "nodes.pth", "--workers", "0")
    node = "-m torch.distributed.run --nnodes=2 --nproc_per_node=1 --master_addr=127.0.0.1 --master_port=29617".split()
    nodes = [
        subprocess.Popen(
            [sys.executable, *node, f"--node_rank={rank}", DRIVER, "ssl_swav_2D", here / "notes", "nothing", "0", "0", *words],
            cwd=here, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    assert [process.wait(300) for process in nodes] == [0, 0]
    ends.append(weights(here / "weights/nodes.pth"))
    for other in ends[1:]:
        assert all(torch.equal(ends[0][name], other[name]) for name in ends[0])


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_run_with_a_sentence(here):
    words = flags("ssl_swav_2D", here, 2, "--workers", "0", "--timeout_minutes", "0.2")
    began = time.monotonic()
    done = run(*torchrun(2), DRIVER, "ssl_swav_2D", here / "notes", "SIGSTOP", 1, 4, *words, cwd=here)
    assert done.returncode != 0 and "another process did not answer in time (--timeout_minutes)" in done.stderr
    assert time.monotonic() - began < 12 + 60 + 40  # the launcher waits 30 s before it kills what does not end; and the start
    assert load_checkpoint(here / "runs/ssl_swav_2D/checkpoints")["position"]["step"] >= 1


@pytest.mark.slow
def test_one_folder_takes_one_run_at_a_time(here):
    words = flags("ssl_swav_2D", here, 4, "--workers", "0", "--epochs", "500")
    command = [sys.executable, DRIVER, "ssl_swav_2D", here / "notes", "nothing", "0", "0", *words]
    first = subprocess.Popen(command, cwd=here, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (here / "runs/ssl_swav_2D/metrics.jsonl").exists():
            assert first.poll() is None
            time.sleep(0.1)
        second = run(DRIVER, "ssl_swav_2D", here / "notes", "nothing", 0, 0, *words, cwd=here)
        assert second.returncode == 2 and f"is in use by another run (process {first.pid} on" in second.stderr
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 75
    finally:
        first.kill()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small disk")
def test_a_full_disk_is_said_and_training_goes_on_with_the_last_good_state(here):
    small = here / "runs"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("cannot mount")
    try:
        words = flags("ssl_swav_2D", here, 4, "--workers", "0", "--precision", "fp32", "--checkpoint_minutes", "0")
        done = run(DRIVER, "ssl_swav_2D", here / "notes", "SIGTERM", 0, 2, *words, cwd=here)
        assert done.returncode == 75
        room = 200 * 2**20 - sum(path.stat().st_size for path in small.rglob("*") if path.is_file())
        (small / "other").write_bytes(bytes(room - 2**20))
        done = run(DRIVER, "ssl_swav_2D", here / "notes", "nothing", 0, 0, *words, cwd=here)
        assert done.returncode == 0 and "could not be saved in" in done.stdout and "No space left" in done.stdout, done.stderr
        checkpoints = small / "ssl_swav_2D/checkpoints"
        assert sorted(path.name for path in checkpoints.iterdir()) == ["last", "step-000002"]
        assert load_checkpoint(checkpoints)["position"]["step"] == 2
        assert all(json.loads(line) for line in (small / "ssl_swav_2D/metrics.jsonl").read_text(encoding="utf-8").splitlines())
    finally:
        subprocess.run(["umount", "-l", small])
