"""Runs each training script twice: once undisturbed, and once killed (SIGKILL) again and again, at any moment.

Both must end with the same bits: weights, the last state (optimiser, bank, queue, clusters, …) and metrics.jsonl but for its
times. Half of the kills come at random times, the others while a state is being saved or clusters are computed.

Run      python benchmarks/kill_test.py --kills 50
"""

import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402
from PIL import Image  # noqa: E402

import engine.run  # noqa: E402
import engine.saver  # noqa: E402
import losses.memory_bank  # noqa: E402
from engine.checkpoint import load_checkpoint  # noqa: E402
from engine.logbook import OF_THE_MACHINE  # noqa: E402

SCRIPTS = ("ssl_swav_2D", "ssl_deepcluster_2D", "mask_swav_3D", "mask_deepcluster_3D", "ssl_swav_3D", "ssl_deepcluster_3D")
PHASES = ("elsewhere", "in a step", "saving", "clustering")
ELSEWHERE, STEP, SAVING, CLUSTERING = range(4)
COMMON = "--arch resnet18 --precision fp32 --warmup_epochs 1 --base_lr 1e-3 --checkpoint_freq 3".split()
RUN = "--checkpoint_minutes 0.02 --pretrained_path weights --dump_path run".split()
VOLUMES = "--target_shape 6 20 20 --d_model 16 --dropout 0.1 --batch_size 4".split()
HEADS = "--nmb_prototypes 3 4 --nmb_slice_prototypes 5 --image_batch_size 3".split()


@dataclass(kw_only=True)
class Flags:
    scripts: tuple[str, ...] = SCRIPTS  # which ones
    kills: int = 50  # of each script
    most_an_epoch: int = 3  # kills within one epoch
    files: int = 40  # volumes, and as many images
    workers: int = 1  # loader processes
    seed: int = 0  # of the moments


@dataclass(frozen=True)
class Outcome:
    """kills: how many came in each phase; most: within one epoch; epochs: of the run; differing: what was not the same."""

    kills: dict[str, int]
    most: int
    epochs: int
    differing: list[str]


def main(flags: Flags) -> int:
    torch.set_num_threads(1)
    differing = 0
    print(f"{'script':22} {'kills':>5}  {'  '.join(PHASES)}  most an epoch  epochs  differing")
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder) / "data", flags.files)
        for name in flags.scripts:
            runs = Path(folder) / name
            outcome = kill_test(name, data, runs, flags.kills, flags.most_an_epoch, flags.workers, flags.seed)
            counts = "  ".join(f"{outcome.kills[phase]:>{len(phase)}}" for phase in PHASES)
            print(
                f"{name:22} {sum(outcome.kills.values()):>5}  {counts}  {outcome.most:>13}  {outcome.epochs:>6}  "
                f"{', '.join(outcome.differing) or 'nothing'}",
                flush=True,
            )
            differing += len(outcome.differing)
            shutil.rmtree(runs)
    return int(differing > 0)


def kill_test(
    name: str, data: Path, folder: Path, kills: int, most_an_epoch: int = 3, workers: int = 1, seed: int = 0
) -> Outcome:
    """Runs script `name` on `data` in `folder`, undisturbed and killed, and compares what both left."""
    epochs = max(3, -(-kills * 5 // (4 * most_an_epoch)))
    inputs(name, data, folder)
    whole, killed = folder / "whole", folder / "killed"
    for path in (whole, killed):
        shutil.copytree(folder / "weights", path / "weights")
    words = script_words(name, data, epochs, workers)
    starting, training = durations(name, words, whole)
    longest = starting + 0.6 * training / epochs  # random times reach beyond the start, and leave epochs for all kills
    counts, most = dict.fromkeys(PHASES, 0), 0
    moments, in_epoch, last_epoch = random.Random(f"{seed} {name}"), 0, -1
    while sum(counts.values()) < kills:
        child, phase = begin(name, words, killed)
        wanted = moments.choice([None, None, SAVING, CLUSTERING if "deepcluster" in name and "mask" not in name else SAVING])
        full = last_epoch if in_epoch >= most_an_epoch else -1
        epoch = wait_for_a_moment(child, phase, wanted, killed, moments.uniform(0.1, longest), full)
        time.sleep(moments.uniform(0, 0.03) if wanted else 0)
        if not child.is_alive():
            break  # it has finished before its time came
        counts[PHASES[phase.value]] += 1
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        in_epoch = in_epoch + 1 if epoch == last_epoch else 1
        last_epoch, most = epoch, max(most, in_epoch)
    ended(name, words, killed)
    return Outcome(counts, most, epochs, differences(whole, killed))


def wait_for_a_moment(child, phase, wanted: int | None, folder: Path, seconds: float, full: int) -> int:
    """Returns when the time to kill has come, or the child has ended → the epoch it is in.

    wanted: a phase, None for the time after `seconds`; full: an epoch that has had its share of kills.
    """
    deadline = time.monotonic() + seconds
    epoch, look_again = epochs_done(folder), 0.0
    while child.is_alive():
        now = time.monotonic()
        if now > look_again:  # a look at the file takes longer than many a phase
            epoch, look_again = epochs_done(folder), now + 0.02
        if epoch != full and (phase.value == wanted or now > deadline + 30 * (wanted is not None)):
            return epoch
        time.sleep(0.0005)
    return epochs_done(folder)


def epochs_done(folder: Path) -> int:
    """From the lines that are there; those of a stopped epoch are written again, so that it never goes back."""
    try:
        return (folder / "run/metrics.jsonl").read_text(encoding="utf-8").count('"kind": "epoch"')
    except OSError:
        return 0


def begin(name: str, words: list[str], folder: Path):
    """Starts the script in a process of its own, which tells in which phase it is."""
    context = multiprocessing.get_context("fork")
    phase = context.RawValue("i", ELSEWHERE)
    child = context.Process(target=_run, args=(name, words, folder, phase))
    child.start()
    return child, phase


def durations(name: str, words: list[str], folder: Path) -> tuple[float, float]:
    """Runs the script to its end → seconds until its first step, and from then on; long ones on a busy machine."""
    begun = time.monotonic()
    child, phase = begin(name, words, folder)
    while child.is_alive() and phase.value == ELSEWHERE:
        time.sleep(0.005)
    first_step = time.monotonic()
    child.join()
    _refuse_failed(child, name, folder)
    return first_step - begun, time.monotonic() - first_step


def ended(name: str, words: list[str], folder: Path) -> None:
    """The script, from where it stands to its end."""
    child, _ = begin(name, words, folder)
    child.join()
    _refuse_failed(child, name, folder)


def _refuse_failed(child, name: str, folder: Path) -> None:
    if child.exitcode:
        raise RuntimeError(
            f"{name} ended with code {child.exitcode}:\n{(folder / 'output').read_text(encoding='utf-8')[-3000:]}"
        )


def differences(whole: Path, killed: Path) -> list[str]:
    """What two runs left differently."""
    found = []
    for path in sorted((whole / "weights").iterdir()):
        a, b = (torch.load(of / "weights" / path.name, weights_only=True) for of in (whole, killed))
        strip = lambda content: content.get("model", content)  # noqa: E731
        found += [] if equal(strip(a), strip(b)) else [path.name]
    a, b = (load_checkpoint(of / "run/checkpoints") for of in (whole, killed))
    for state in (a, b):
        for name in ("seconds", "data_wait_seconds"):
            state["tally"].pop(name)
        state["position"].pop("metrics_bytes")  # times have more or fewer digits
    found += [f"state {name}" for name in a.keys() | b.keys() if not equal(a.get(name), b.get(name))]
    return found + ([] if metrics(whole) == metrics(killed) else ["metrics.jsonl"])


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in OF_THE_MACHINE} for line in lines]


def equal(a, b) -> bool:
    """Bit by bit."""
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape
        return same and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def inputs(name: str, data: Path, folder: Path) -> None:
    """The weights that a script starts from, from short runs of the stages before."""
    (folder / "weights").mkdir(parents=True)
    method = "swav" if "swav" in name else "deepcluster"
    before = {"mask": ["ssl_%s_2D"], "3D": ["ssl_%s_2D", "mask_%s_3D"]}.get(_stage(name), [])
    for stage in before:
        ended(stage % method, script_words(stage % method, data, 1, 0), folder)
        shutil.rmtree(folder / "run")


def script_words(name: str, data: Path, epochs: int, workers: int) -> list[str]:
    words = [*COMMON, *RUN, "--epochs", str(epochs), "--workers", str(workers)]
    if _stage(name) == "2D":
        crops = "--nmb_crops 2 2 --size_crops 24 16" if "swav" in name else "--nmb_crops 2 --size_crops 24"
        queue = "--queue_length 16 --epoch_queue_starts 1 --freeze_prototypes_niters 3" if "swav" in name else ""
        return [*words, "--data_path", str(data / "images"), *f"{crops} {queue}".split(), "--batch_size", "4", *HEADS[:3]]
    words += ["--data_path", str(data / "volumes"), *VOLUMES]
    if _stage(name) == "mask":
        return [*words, "--cached_views", "2" if "swav" in name else "0", "--masks_per_view", "2"]
    queues = "--queue_length 8 --slice_queue_length 16 --epoch_queue_starts 1" if "swav" in name else ""
    return [*words, *HEADS, *queues.split(), "--image_path", str(data / "images")]


def make_data(root: Path, files: int) -> Path:
    """Labelled noise with a structure, small enough that a step takes a moment."""
    draws = np.random.default_rng(0)
    for kind in ("volumes", "images"):
        rows = ["path,label"]
        for number in range(files):
            path = root / kind / "ab"[number % 2] / f"{number:02d}.{'npy' if kind == 'volumes' else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = draws.integers(0, 60, (24, 22, 4 + number % 4)) + 100 * (np.arange(24) > number % 20)[:, None, None]
            if kind == "volumes":
                np.save(path, pixels.astype(np.int16))
            else:
                Image.fromarray(pixels[..., 0].astype(np.uint8)).save(path)
            rows.append(f"{path.relative_to(root / kind)},{number % 4 // 2}")
        (root / kind / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def _stage(name: str) -> str:
    return "mask" if name.startswith("mask") else name[-2:]


def _run(name: str, words: list[str], folder: Path, phase) -> None:
    os.chdir(folder)
    sys.stdout = sys.stderr = open("output", "a", encoding="utf-8", buffering=1)
    sys.argv = [f"{name}.py", *words]
    engine.saver.save_checkpoint = _telling(engine.saver.save_checkpoint, phase, SAVING)
    bank, run = losses.memory_bank.MemoryBank, engine.run.Run
    bank.cluster_heads, run.update = _telling(bank.cluster_heads, phase, CLUSTERING), _telling(run.update, phase, STEP)
    script = importlib.import_module(name)
    config_class = next(v for k, v in vars(script).items() if k.endswith("Config") and v.__module__ == name)
    if name.startswith("mask"):
        method = "swav" if "swav" in name else "deepcluster"
        return engine.run.launch(config_class, lambda config: script.main(config, method))
    engine.run.launch(config_class, script.main)


def _telling(function, phase, number: int):
    def telling(*args, **kwargs):
        before, phase.value = phase.value, number
        try:
            return function(*args, **kwargs)
        finally:
            phase.value = before

    return telling


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Flags, description=__doc__, use_underscores=True)))
