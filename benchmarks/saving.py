"""What saving costs: how long training stands still, and how much slower the steps beside the writing are.

Run      python benchmarks/saving.py                            # stage 3 (SwAV) at full size; three rounds of a minute and more
Writes   nothing that stays
"""

import functools
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import stage3  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402
from measure import seconds  # noqa: E402
from run import processor  # noqa: E402

from engine.optimizers import make_optimizer  # noqa: E402
from engine.processes import keep_freed_memory  # noqa: E402
from engine.saver import Saver  # noqa: E402


@dataclass(kw_only=True)
class Flags:
    steps: int = 24  # of training in a round; the state is saved after a third of them
    rounds: int = 3
    more_megabytes: int = 200  # beside the state, as a bank would be
    quick: bool = False  # a small network
    folder: str = ""  # where to write (none = a temporary folder)


@dataclass(frozen=True)
class Cost:
    """Seconds: `stood` still in the step that saved, `writing` in the thread, `slower`: what the steps beside it took more."""

    stood: float
    writing: float
    slower: float
    step: float


def main(flags: Flags) -> None:
    keep_freed_memory()
    arch, shape, volumes, dim = stage3.sizes(flags.quick)
    model = stage3.make_model(arch, dim).to(memory_format=torch.channels_last)
    optimizer = make_optimizer("adamw", model, 1e-6, 1e-6)
    step = functools.partial(stage3.step, model, optimizer, stage3.make_batch(shape, volumes))
    bank = torch.rand(flags.more_megabytes * 10**6 // 4)
    for _ in range(3):
        step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "bank": {"rows": bank}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(flags.folder or temporary)
        size = tell_plain(folder, state, bank)
        saver = Saver(folder / "checkpoints")
        costs = [one_round(step, saver, state, flags.steps, number) for number in range(flags.rounds)]
    middle = {name: statistics.median(vars(cost)[name] for cost in costs) for name in vars(costs[0])}
    share = (middle["stood"] + max(0.0, middle["slower"])) / 60
    print(f"{processor()}, {torch.get_num_threads()} thread(s), medians of {flags.rounds}")
    print(f"a state of {size:.0f} MB, steps of {middle['step']:.2f} s: training stands still for {middle['stood']:.3f} s;")
    print(f"the thread writes for {middle['writing']:.1f} s, steps beside it take {middle['slower']:.2f} s more")
    print(f"in a minute with one save, {share:.1%} of the time")


def tell_plain(folder: Path, state: dict, bank: torch.Tensor) -> float:
    """Prints what torch.save and our standstill take for the bank alone; gives the size of the state in MB."""
    saver, plain, ours = Saver(folder / "bank"), [], []
    for number in range(5):
        plain.append(seconds(lambda: torch.save(bank, folder / "plain.pt")))
        ours.append(seconds(functools.partial(saver.save, number, {"bank": bank})))
        saver.wait()
    print(
        f"{bank.nbytes / 1e6:.0f} MB: torch.save, which waits for no disk, {statistics.median(plain):.3f} s; "
        f"standstill of ours, which does, {statistics.median(ours):.3f} s (medians of 5)"
    )
    torch.save(state, folder / "plain.pt")
    return (folder / "plain.pt").stat().st_size / 1e6


def one_round(step, saver: Saver, state: dict, steps: int, number: int) -> Cost:
    undisturbed, beside, stood, began, writing = [], [], 0.0, 0.0, 0.0
    for index in range(steps):
        if index == steps // 3:
            stood = seconds(lambda: saver.save(number, state))
            began = time.perf_counter()
        busy = bool(saver._writing and saver._writing.is_alive())
        took = seconds(step)
        (beside if busy else undisturbed).append(took)
        if busy and not saver._writing.is_alive():
            writing = time.perf_counter() - began
    saver.wait()
    usual = statistics.median(undisturbed)
    return Cost(stood, writing, sum(beside) - usual * len(beside), usual)


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__, use_underscores=True))
