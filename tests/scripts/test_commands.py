"""Commands as people type them: the published ones word for word, and the pipeline."""

import json
import re

import pytest

from datasets.make_samples import Samples
from datasets.make_samples import main as make_samples
from tests.scripts.conftest import ROOT, run

pytestmark = pytest.mark.slow
SMALL = "--arch resnet18 --epochs 1 --workers 0 --target_shape 8 24 24 --batch_size 4".split()
PUBLISHED = "-m torch.distributed.launch --nproc_per_node=2".split()


# the published commands, word for word
STAGE_1 = {
    "deepcluster": """./vissl/tools/run_distributed_engines.py config=pretrain/deepcluster_v2/deepclusterv2_2crops_resnet
        config.DATA.TRAIN.DATA_SOURCES=[disk_folder] config.DATA.TRAIN.DATASET_NAMES=[ssl_2d]
        config.CHECKPOINT.DIR=./weights/2D_SSL_DeepCluster config.OPTIMIZER.num_epochs=105
        config.DISTRIBUTED.NUM_PROC_PER_NODE=2 config.DISTRIBUTED.NUM_NODES=1 config.DISTRIBUTED.RUN_ID=auto
        config.HOOKS.TENSORBOARD_SETUP.USE_TENSORBOARD=true""",
    "swav": """./vissl/tools/run_distributed_engines.py config=pretrain/swav/swav_8node_resnet
        config.DATA.TRAIN.DATA_SOURCES=[disk_folder] config.DATA.TRAIN.DATASET_NAMES=[ssl_2d]
        config.CHECKPOINT.DIR=./weights/2D_SSL_SwAV config.OPTIMIZER.num_epochs=105
        config.DISTRIBUTED.NUM_PROC_PER_NODE=2 config.DISTRIBUTED.NUM_NODES=1 config.DISTRIBUTED.RUN_ID=auto
        config.HOOKS.TENSORBOARD_SETUP.USE_TENSORBOARD=true""",
}
FOLDERS = {"deepcluster": "weights/2D_SSL_DeepCluster", "swav": "weights/2D_SSL_SwAV"}
SMALL_STAGE_1 = """config.OPTIMIZER.num_epochs=1 config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=32 config.DATA.NUM_DATALOADER_WORKERS=0
    --arch resnet18 --nmb_crops 2 --size_crops 32 --nmb_prototypes 7""".split()


def test_the_published_commands_run_on_the_samples_one_after_the_other(tmp_path):
    for name in ("training_data_2D", "training_data_3D", "vissl", *(path.name for path in ROOT.glob("*.py"))):
        (tmp_path / name).symlink_to(ROOT / name)
    for method in ("deepcluster", "swav"):
        heads = ["7", "7"] if method == "deepcluster" else []
        convert = "vissl/extra_scripts/convert_vissl_to_torchvision.py --output_dir weights --output_name".split()
        convert += [method, "--model_url_or_file", f"{FOLDERS[method]}/model_final_checkpoint_phase0.torch"]
        commands = [
            (FOLDERS[method], [*STAGE_1[method].split(), *SMALL_STAGE_1, *heads]),
            (f"weights/resnet_{method}2D.pth", convert),
            (f"weights/mask_{method}.pth", [*PUBLISHED, f"mask_{method}_3D.py", *SMALL]),
            (f"weights/{method}3D.pth", [*PUBLISHED, f"ssl_{method}_3D.py", *SMALL]),
        ]
        for writes, command in commands:
            done = run(*command, cwd=tmp_path)
            assert done.returncode == 0, done.stderr[-2000:]
            assert (tmp_path / writes).exists()


def pipeline(cwd, data, *more):
    words = ["--arch", "resnet18", "--target_shape", 8, 24, 24, "--workers", 0, "--name", "p", *more]
    for stage in (1, 2, 3):
        (cwd / f"s{stage}.yaml").write_text(
            "epochs: 1\nwarmup_epochs: 0\nbatch_size: 4\n" + ("size_crops: [24]\nnmb_crops: [2]\n" if stage == 1 else ""),
            encoding="utf-8",
        )
        words += [f"--stage{stage}", f"s{stage}.yaml"]
    return run(ROOT / "run_pipeline.py", *words, cwd=cwd)


def report_of(cwd):
    """The page that the pipeline has written, which shows all that it could."""
    page = (cwd / "runs/p/report.html").read_text(encoding="utf-8")
    assert "cannot be shown" not in page and len(page) < 5e6
    return page


def test_the_pipeline_ends_in_a_table_and_skips_what_is_up_to_date(tmp_path, data):
    words = ["--method", "both", "--data_path", data / "volumes", "--image_path", data / "images"]
    done = pipeline(tmp_path, data, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    for what in ("raw pixels", "random weights", "ssl_swav_3D.py", "ssl_deepcluster_3D.py", "R² masked", "kNN images"):
        assert what in done.stdout
    figures = json.loads((tmp_path / "runs/p/evaluation/evaluation.json").read_text(encoding="utf-8"))
    assert len(figures) == 8 and figures["swav3D.pth"]["volumes"]["files"] == 10
    assert {"p, SwAV", "p, DeepClusterV2"} <= set(re.findall(r"<h3>([^<]+)</h3>", report_of(tmp_path)))

    again = pipeline(tmp_path, data, *words)
    assert again.stdout.count("up to date, skipped") == 6
    weights = tmp_path / "runs/p/weights/mask_swav.pth"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    once_more = pipeline(tmp_path, data, *words)
    assert once_more.returncode == 0, once_more.stderr[-2000:]
    # stage 2 is done anew, and stage 3, which starts from it
    assert once_more.stdout.count("up to date, skipped") == 4


def test_with_labelled_volumes_it_ends_in_a_table_of_segmentations(tmp_path, data):
    make_samples(Samples(output=str(tmp_path), volumes=0, images=0, labelled=12, shape=(24, 24, 6)))
    constants = "classes: ['1']\nother_labels: background\nepochs: 1\nepoch_steps: 2\nbatch_size: 4\nimage_size: [32, 32]\n"
    (tmp_path / "seg.yaml").write_text(constants, encoding="utf-8")
    words = ["--data_path", data / "volumes", "--labelled_path", "labelled", "--segmentation", "seg.yaml"]
    done = pipeline(tmp_path, data, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    table = done.stdout[done.stdout.index("Dice of 4 test volumes") :]
    linear = [f"{start}-linear" for start in ("random", "resnet_swav2D", "swav3D")]
    for start in ("random ", "resnet_swav2D ", "swav3D ", "swav3D-context", *linear):
        assert f"│ {start}" in table
        assert (tmp_path / f"runs/p/weights/segmentation-{start.strip()}.pth").is_file()
    with open(tmp_path / "runs/p/segmentation-swav3D-context/config.yaml", encoding="utf-8") as file:
        assert "context: true" in file.read()
    assert pipeline(tmp_path, data, *words).stdout.count("up to date, skipped") == 10

    (tmp_path / "labelled/test/Phantom_Chest-0001.npz").unlink()
    once_more = pipeline(tmp_path, data, *words)
    assert once_more.stdout.count("up to date, skipped") == 3 and "Dice of 3 test volumes" in once_more.stdout


def test_with_images_only_it_ends_after_stage_1_and_says_so(tmp_path, data):
    done = pipeline(tmp_path, data, "--image_path", data / "images")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ends after stage 1" in done.stdout and "mask_swav_3D" not in done.stdout
    assert 'id="clusters"' in report_of(tmp_path) and 'id="masked"' not in report_of(tmp_path)


def test_with_volumes_only_stage_1_learns_from_their_slices(tmp_path, data):
    done = pipeline(tmp_path, data, "--data_path", data / "volumes")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "volume_path" in (tmp_path / "runs/p/ssl_swav_2D/constants.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "runs/p/weights/swav3D.pth").exists() and 'id="masked"' in report_of(tmp_path)


def test_nothing_to_learn_from_and_a_failing_stage_are_one_sentence(tmp_path, data):
    done = run(ROOT / "run_pipeline.py", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("error:") == 1 and not (tmp_path / "runs").exists()
    done = run(ROOT / "evaluate_embeddings.py", cwd=tmp_path)
    assert done.returncode == 2 and "--data_path" in done.stderr
