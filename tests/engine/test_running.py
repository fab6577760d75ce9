import os
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from engine.checkpoint import sha256
from engine.errors import UserError
from engine.folder import RunFolder
from engine.repeated import Repeated
from engine.run import Run
from engine.weights import write_weights


def input_of(folder: Path) -> tuple:
    run = SimpleNamespace(config=SimpleNamespace(pretrained_path=str(folder)), inputs={})
    return Run.input(run, "f.pth"), run.inputs


def test_the_hash_of_an_input_is_noted_and_a_missing_one_is_for_its_reader_to_refuse(tmp_path):
    path = tmp_path / "f.pth"
    assert input_of(tmp_path) == (path, {})
    path.write_bytes(b"weights")
    assert input_of(tmp_path) == (path, {str(path): sha256(path)})


def process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    said = []
    for case in ("same", "other", "missing"):
        os.makedirs(f"{folder}/{rank}/{case}")
        os.chdir(f"{folder}/{rank}/{case}")
        if rank == 0 or case != "missing":
            Path("f.pth").write_text(case if rank == 0 or case == "same" else "else", encoding="utf-8")
        try:
            input_of(Path())
            said.append("")
        except UserError as error:
            said.append(str(error))
    Path(folder, f"{rank}.txt").write_text("\n".join(said), encoding="utf-8")
    dist.destroy_process_group()


def test_a_process_that_sees_other_weights_or_none_ends_all_with_one_sentence(tmp_path):
    mp.spawn(process, (str(tmp_path),), nprocs=2)
    said = [(tmp_path / f"{rank}.txt").read_text(encoding="utf-8").split("\n") for rank in range(2)]
    assert said[0] == said[1] and said[0][0] == ""
    for sentence in said[0][1:]:
        assert "process 1 on" in sentence and "does not see f.pth as the first process does" in sentence


def test_weights_that_another_run_wrote_meanwhile_stay(tmp_path, capsys):
    path = tmp_path / "out.pth"
    write_weights(path, {"w": torch.zeros(1)}, {"run": "theirs"})
    for run_id, own in [("theirs", path), ("ours", tmp_path / "out.ours.pth")]:
        run = SimpleNamespace(output=path, run_id=run_id, files=RunFolder(tmp_path, "s"), warn=print)
        Run._keep_foreign(run)
        assert run.output == own
    assert f"another run has written {path} meanwhile" in capsys.readouterr().out


def test_warnings_of_the_guard_are_said_ever_less_often_and_its_figures_are_logged_each_epoch():
    said, logged = [], []
    run = SimpleNamespace(repeated=Repeated(), say=said.append, log=lambda **figures: logged.append(figures))
    run.soundness, run.tally = SimpleNamespace(refuse_nonfinite=lambda means: None), SimpleNamespace(means=dict)
    for rank in (1.1, 1.2, 1.3):
        Run.watch(run, SimpleNamespace(report=lambda rank=rank: ({"images_rank": rank}, [f"images: rank {rank}"])))
    assert [figures["images_rank"] for figures in logged] == [1.1, 1.2, 1.3]
    assert said[0] == "warning: images: rank 1.1" and len(said) == 2 and said[1].startswith("warning: images: rank 1.2 (")
