"""Trains a script as its command does, notes what each process sees, and disturbs one process after a step.

`disturbed.py SCRIPT NOTES WHAT RANK STEP FLAGS…`; WHAT: a signal, which the process of that rank sends itself once that step is
done in the first start by this launcher, and notes when; "nothing" for none. "SIGNAL@clustering": as k-means begins.
"SIGNAL@loaders": to its loader processes instead.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.run import Run, launch
from losses.memory_bank import MemoryBank


def main(name: str, notes: str, what: str, rank: str, step: str, *flags: str) -> None:
    sys.argv = [name, *flags]
    script = importlib.import_module(name)
    plain = Run.batches

    def batches(run, *loaders):
        for batch in plain(run, *loaders):
            first = batch[0] if isinstance(batch, list) else batch
            yield batch
            with open(Path(notes) / f"{run.epoch}.txt", "a", encoding="utf-8") as file:
                file.write("".join(f"{int(index)}\n" for index in first["index"]))
            if (what, run.rank, run.step) == (what, int(rank), int(step)) and what != "nothing":
                if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
                    (Path(notes) / f"{what}.txt").write_text(str(time.time()), encoding="utf-8")
                    kind, _, whom = what.partition("@")
                    loaders = [child.pid for child in multiprocessing.active_children()]
                    for process in loaders if whom else [os.getpid()]:
                        os.kill(process, getattr(signal, kind))

    if what.endswith("@clustering") and os.environ.get("RANK", "0") == rank:
        cluster = MemoryBank.cluster_heads

        def cluster_heads(bank, *words):
            os.kill(os.getpid(), getattr(signal, what.partition("@")[0]))
            cluster(bank, *words)

        MemoryBank.cluster_heads = cluster_heads
    Run.batches = batches
    config_class = next(v for k, v in vars(script).items() if k.endswith("Config") and v.__module__ == name)
    launch(config_class, script.main)


if __name__ == "__main__":
    main(*sys.argv[1:])
