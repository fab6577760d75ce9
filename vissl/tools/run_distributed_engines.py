"""Stands in for VISSL's command of the same name: the published commands of stage 1, run by this project's own scripts.

Reads    vissl/configs/config/dataset_catalog.json, the pictures that it names
Writes   <CHECKPOINT.DIR>/model_final_checkpoint_phase<N>.torch in VISSL's layout; our own run in <CHECKPOINT.DIR>/run
Run      python vissl/tools/run_distributed_engines.py config=pretrain/swav/swav_8node_resnet config.CHECKPOINT.DIR=… …
"""

import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from translation import ROOT, Command, translate

from engine.checkpoint import load_checkpoint, write_atomically
from engine.errors import UserError, speaking_to_people
from engine.weights import about_weights
from models.vissl import to_vissl

RESNET = "slice_encoder.resnet."


def main(words: list[str]) -> None:
    command = translate(words)
    print(f"This stands in for VISSL: {command.script} with --preset vissl, {command.processes} process(es).")
    print(*command.said, sep="\n", flush=True)
    train(command)
    print(f"wrote {write_checkpoint(command)}")


def train(command: Command) -> None:
    """Runs the script to its end, going on where it stopped."""
    gpus = torch.cuda.device_count()
    if 0 < gpus < command.processes:
        raise UserError(
            f"config.DISTRIBUTED.NUM_PROC_PER_NODE={command.processes} asks for a GPU each, but this machine has {gpus}; "
            f"write config.DISTRIBUTED.NUM_PROC_PER_NODE={gpus}."
        )
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={command.processes}"]
    words = [*(launcher if command.processes > 1 else []), str(ROOT / command.script), *command.flags]
    code = subprocess.run([sys.executable, *words]).returncode
    if code:
        raise UserError(f"{command.script} ended with code {code}; mend what it says and give the same command again.")


def write_checkpoint(command: Command) -> Path:
    """Puts the last checkpoint of our run, which has the heads, too, into VISSL's layout; gives the file."""
    run = command.folder / "run"
    state = load_checkpoint(run / "checkpoints", set_aside=False)
    if state is None:
        raise UserError(f"{run} holds no checkpoint; delete the folder and give the same command again.")
    model, position = state["model"], state["position"]
    resnet = {name.removeprefix(RESNET): value for name, value in model.items() if name.startswith(RESNET)}
    heads = {name: value for name, value in model.items() if name.startswith(("head.", "prototypes."))}
    phase = position["step"] // position["steps_per_epoch"] - 1
    about = about_weights(run / f"resnet_{command.method}2D.pth")
    content = to_vissl(resnet, heads, command.method, phase, position["steps_per_epoch"], about)
    path = command.folder / f"model_final_checkpoint_phase{phase}.torch"
    write_atomically(path, lambda temporary: torch.save(content, temporary))
    return path


if __name__ == "__main__":
    with speaking_to_people():
        main(sys.argv[1:])
