"""The published commands of stage 1, which name files of VISSL, and what becomes of their words."""

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
import torchvision

from datasets.files import find_images, find_volumes
from datasets.whole_files import whole_files
from engine.config import as_plain, parse
from engine.errors import UserError
from evaluate_embeddings import EvaluationConfig, as_trained, embed, raw_pixels
from models.pretrained import load_encoders
from models.slice_encoder import SliceEncoder
from models.vissl import to_vissl
from models.weight_files import read_weights
from ssl_deepcluster_2D import DeepClusterImageConfig
from ssl_swav_2D import SwavImageConfig
from tests.scripts.conftest import ROOT, run

CONFIGS = {"swav": "pretrain/swav/swav_8node_resnet", "deepcluster": "pretrain/deepcluster_v2/deepclusterv2_2crops_resnet"}
CLASSES = {"swav": SwavImageConfig, "deepcluster": DeepClusterImageConfig}
FOLDERS = {"swav": "./weights/2D_SSL_SwAV", "deepcluster": "./weights/2D_SSL_DeepCluster"}
LOSSES = {"swav": "LOSS.swav_loss", "deepcluster": "LOSS.deepclusterv2_loss"}
SCALING = "OPTIMIZER.param_schedulers.lr.auto_lr_scaling"


def published(method):
    """The words of the published command, after the script's name."""
    return [
        f"config={CONFIGS[method]}",
        "config.DATA.TRAIN.DATA_SOURCES=[disk_folder]",
        "config.DATA.TRAIN.DATASET_NAMES=[ssl_2d]",
        f"config.CHECKPOINT.DIR={FOLDERS[method]}",
        "config.OPTIMIZER.num_epochs=105",
        "config.DISTRIBUTED.NUM_PROC_PER_NODE=2",
        "config.DISTRIBUTED.NUM_NODES=1",
        "config.DISTRIBUTED.RUN_ID=auto",
        "config.HOOKS.TENSORBOARD_SETUP.USE_TENSORBOARD=true",
    ]


@pytest.fixture(scope="module")
def stand_in():
    """The two modules of the folder, which is no package."""
    folders = [str(ROOT / "vissl" / name) for name in ("tools", "extra_scripts")]
    sys.path[:0] = folders
    yield importlib.import_module("translation"), importlib.import_module("convert_vissl_to_torchvision")
    for folder in folders:
        sys.path.remove(folder)


def constants(stand_in, method, *more):
    """The script's configuration for the published words and more."""
    return parse(CLASSES[method], stand_in[0].translate([*published(method), *more]).flags)


@pytest.mark.parametrize("method", CONFIGS)
def test_the_published_words_are_the_preset(method, stand_in):
    command = stand_in[0].translate(published(method))
    assert (command.script, command.processes) == (f"ssl_{method}_2D.py", 2)
    places = {"data_path", "pretrained_path", "dump_path"}
    ours, preset = as_plain(parse(CLASSES[method], command.flags)), as_plain(parse(CLASSES[method], ["--preset", "vissl"]))
    assert {name for name in ours if ours[name] != preset[name]} == places
    assert ours["dump_path"] == ours["pretrained_path"] == f"{FOLDERS[method][2:]}/run"


@pytest.mark.parametrize(
    "method, word, flag, value",
    [
        ("swav", "DATA.TRAIN.BATCHSIZE_PER_REPLICA=8", "batch_size", 8),
        ("swav", "DATA.NUM_DATALOADER_WORKERS=0", "workers", 0),
        ("swav", "OPTIMIZER.num_epochs=1", "epochs", 1),
        ("swav", "OPTIMIZER.weight_decay=1e-4", "wd", 1e-4),
        ("swav", "SEED_VALUE=3", "seed", 3),
        ("swav", "MODEL.TRUNK.RESNETS.DEPTH=18", "arch", "resnet18"),
        ("swav", "MODEL.AMP_PARAMS.USE_AMP=false", "precision", "fp32"),
        ("swav", "MODEL.SYNC_BN_CONFIG.CONVERT_BN_TO_SYNC_BN=false", "sync_bn", "none"),
        ("swav", "MODEL.WEIGHTS_INIT.PARAMS_FILE=/a/b.torch", "start_from", "/a/b.torch"),
        ("swav", "CHECKPOINT.AUTO_RESUME=false", "resume", "never"),
        ("swav", "CHECKPOINT.OVERWRITE_EXISTING=true", "overwrite", True),
        ("swav", "HOOKS.TENSORBOARD_SETUP.LOG_DIR=logs", "log_dir", "logs"),
        ("swav", "LOSS.swav_loss.temperature=0.2", "temperature", 0.2),
        ("swav", "LOSS.swav_loss.epsilon=0.03", "epsilon", 0.03),
        ("swav", "LOSS.swav_loss.num_iters=5", "sinkhorn_iterations", 5),
        ("swav", "LOSS.swav_loss.num_prototypes=[30]", "nmb_prototypes", (30,)),
        ("swav", "LOSS.swav_loss.queue.queue_length=64", "queue_length", 64),
        ("deepcluster", "LOSS.deepclusterv2_loss.num_clusters=[4,5]", "nmb_prototypes", (4, 5)),
        ("deepcluster", "LOSS.deepclusterv2_loss.kmeans_iters=3", "kmeans_iterations", 3),
        ("deepcluster", "LOSS.deepclusterv2_loss.temperature=0.07", "temperature", 0.07),
    ],
)
def test_an_override_is_the_flag_of_the_same_meaning(method, word, flag, value, stand_in):
    assert getattr(constants(stand_in, method, f"config.{word}"), flag) == value


@pytest.mark.parametrize(
    "words, first",
    [
        ([], 0.15),
        (["config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=8"], 0.3 * 16 / 256),
        (["config.DISTRIBUTED.NUM_PROC_PER_NODE=8"], 0.3 * 512 / 256),
        ([f"config.{SCALING}.base_value=0.1", f"config.{SCALING}.base_lr_batch_size=64"], 0.2),
        ([f"config.{SCALING}.scaling_type=sqrt"], 0.3 * 0.5**0.5),
        (["--batch_size", "32"], 0.3 * 64 / 256),
    ],
)
def test_the_rate_is_scaled_with_the_global_batch(words, first, stand_in):
    config = constants(stand_in, "swav", *words)
    assert config.base_lr == pytest.approx(first) and config.final_lr == pytest.approx(first / 1000)
    assert config.warmup_epochs == 0
    assert constants(stand_in, "deepcluster", *words).final_lr == 0
    assert constants(stand_in, "swav", *words, "--base_lr", "1").base_lr == 1


def test_without_the_override_the_epochs_are_the_recipes(stand_in):
    for method, epochs in [("swav", 400), ("deepcluster", 100)]:
        words = [word for word in published(method) if "num_epochs" not in word]
        assert parse(CLASSES[method], stand_in[0].translate(words).flags).epochs == epochs


def test_the_last_of_equal_overrides_wins_and_flags_win_over_them(stand_in):
    words = ["config.OPTIMIZER.num_epochs=3", "config.OPTIMIZER.num_epochs=4"]
    assert constants(stand_in, "swav", *words).epochs == 4
    assert constants(stand_in, "swav", "--epochs", "5", "--size_crops", "32", "16", *words).epochs == 5


def test_a_rate_of_ones_own_is_the_one_that_is_said_and_its_end_goes_with_it(stand_in):
    command = stand_in[0].translate([*published("swav"), "--base_lr", "0.5"])
    assert command.said == ["learning rate: 0.5, by --base_lr"]
    config = constants(stand_in, "swav", "--base_lr", "0.5")
    assert (config.base_lr, config.final_lr) == (0.5, pytest.approx(0.0005))


@pytest.mark.parametrize(
    "word, message",
    [
        ("config.OPTIMIZER.num_epoch=3", r"config\.OPTIMIZER\.num_epoch has no counterpart .*config\.OPTIMIZER\.num_epochs\?"),
        ("config.LOSS.moco_loss.momentum=3", r"config\.LOSS\.moco_loss\.momentum has no counterpart"),
        ("config.DISTRIBUTED.NUM_NODES=2", "NUM_NODES=2 cannot be done here"),
        ("config.DISTRIBUTED.NUM_PROC_PER_NODE=0", "NUM_PROC_PER_NODE=0"),
        ("config.DATA.TRAIN.DATA_SOURCES=[disk_filelist]", r"DATA_SOURCES=\[disk_filelist\] cannot.*\[disk_folder\]"),
        ("config.DATA.TRAIN.DATASET_NAMES=[imagenet]", r"dataset_catalog\.json has no data set 'imagenet'; it has ssl_2d"),
        ("config.DATA.TRAIN.DATASET_NAMES=[a,b]", "DATASET_NAMES=.*give one"),
        ("config.OPTIMIZER.use_larc=false", "use_larc=false cannot"),
        ("config.OPTIMIZER.num_epochs=many", "num_epochs=many is not a whole number"),
        ("config.OPTIMIZER.num_epochs=.inf", "num_epochs=inf is not a whole number"),
        ("config.OPTIMIZER.param_schedulers.lr.auto_lr_scaling.base_value=.nan", "base_value=nan is not a number"),
        ("config.OPTIMIZER.param_schedulers.lr.auto_lr_scaling.base_lr_batch_size=0", "give no rate; use numbers above 0"),
        ("config.MODEL.TRUNK.RESNETS.DEPTH=77", "use 18, 34, 50 or 101"),
        ("config.LOSS.swav_loss.queue.start_iter=5", "start_iter=5 cannot"),
        ("config=pretrain/simclr/simclr_8node_resnet", "is not known here; use config=pretrain/swav"),
        ("config.VERBOSE", "has no value"),
        ("--dump_path=x", "--dump_path is set by this command"),
    ],
)
def test_what_has_no_counterpart_is_one_sentence_that_names_it(word, message, stand_in):
    with pytest.raises(UserError, match=message) as error:
        stand_in[0].translate([*published("swav"), word])
    assert "\n" not in str(error.value)


def test_a_command_without_its_recipe_its_folder_or_one_node_is_refused(stand_in):
    for missing, message in [
        ("config=", "config=… is missing"),
        ("config.CHECKPOINT.DIR", "DIR is missing"),
        ("NUM_NODES", "=8"),
    ]:
        with pytest.raises(UserError, match=message):
            stand_in[0].translate([word for word in published("swav") if missing not in word])
    with pytest.raises(UserError, match="'ssl_2d' is no override"):
        stand_in[0].translate(["ssl_2d", *published("swav")])


def test_the_catalogue_names_the_train_folder_and_no_held_out_picture_is_read(stand_in, tmp_path):
    read = {item.path for item in find_images(stand_in[0].catalogued(["ssl_2d"]))}
    assert read == {item.path for item in find_images(ROOT / "training_data_2D/train")}
    assert len(read) == 240 and all("/training_data_2D/train/" in str(path) for path in read)
    catalogue = tmp_path / "dataset_catalog.json"
    assert (
        stand_in[0]
        .translate([*published("swav"), f"config.DATA.TRAIN.DATA_PATHS=[{tmp_path}/train]"])
        .flags.count(f"{tmp_path}/train")
    ), "a folder train/ that is not there does not let the pictures around it in"
    entry = {"mine": {"train": ["/path/to/train/", "<unused>"]}, "odd": {}, "ours": {"train": ["/data/pngs", "<unused>"]}}
    catalogue.write_text(json.dumps(entry), encoding="utf-8")
    assert stand_in[0].catalogued(["ours"], catalogue) == "/data/pngs"
    for name, message in [
        ("mine", "still has '/path/to/train/'"),
        ("odd", "no training folder"),
        ("x", "it has mine, odd, ours"),
    ]:
        with pytest.raises(UserError, match=message):
            stand_in[0].catalogued([name], catalogue)
    catalogue.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        stand_in[0].catalogued(["mine"], catalogue)


def test_the_folder_is_no_package_that_could_hide_an_installed_one():
    assert not list((ROOT / "vissl").rglob("__init__.py"))


# ---- the converter


def checkpoint(path, method="swav"):
    """A checkpoint as VISSL leaves it, which says nothing of us."""
    torch.manual_seed(2)
    heads = {"head.layers.0.weight": torch.zeros(3, 512), "prototypes.heads.0": torch.zeros(2, 3)}
    content = to_vissl(SliceEncoder("resnet18", 8).resnet.state_dict(), heads, method, 4, 3, {})
    del content["joint_ssl"]
    torch.save(content, path)
    return content


def convert(stand_in, *words):
    stand_in[1].main(parse(stand_in[1].ConversionConfig, list(map(str, words))))


def test_the_converter_writes_the_flat_file_and_the_one_that_stage_2_reads(stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    trunk = checkpoint("m.torch")["classy_state_dict"]["base_model"]["model"]["trunk"]
    words = ["--model_url_or_file", "m.torch", "--output_dir", "out", "--output_name", "swav"]
    convert(stand_in, *words)
    flat = torch.load("out/converted_vissl_swav.torch")
    assert {f"_feature_blocks.{name}" for name in flat} == trunk.keys()
    assert all(torch.equal(flat[name.removeprefix("_feature_blocks.")], value) for name, value in trunk.items())
    for_stage_2 = read_weights("weights/resnet_swav2D.pth")
    assert (for_stage_2.origin, for_stage_2.method) == ("this project", "swav")
    assert for_stage_2.config == {"normalise": "imagenet", "arch": "resnet18"}
    assert all(torch.equal(for_stage_2.state[name], value) for name, value in flat.items())
    assert capsys.readouterr().out.count("stands in for VISSL") == 1
    convert(stand_in, *words)  # the same once more replaces its own file
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "weights/resnet_swav2D.pth")
    convert(stand_in, *words)
    assert "written by another run and stays" in capsys.readouterr().out
    assert len(torch.load("weights/resnet_swav2D.pth")) == 1


def test_the_converter_names_what_it_cannot_convert(stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = checkpoint("m.torch")
    torch.save(content["classy_state_dict"]["base_model"]["model"]["trunk"], "trunk.torch")
    convert(stand_in, "--model_url_or_file", "trunk.torch", "--output_dir", ".", "--output_name", "x")
    assert "unknown method" in capsys.readouterr().out and not (tmp_path / "weights").exists()
    shutil.copy("converted_vissl_x.torch", "plain.pth")
    for words, message in [
        (["--output_dir", "."], "--model_url_or_file is missing"),
        (["--model_url_or_file", "http://a/b", "--output_dir", ".", "--output_name", "x"], "is not a file; download it"),
        (["--model_url_or_file", "m.torch", "--output_dir", "no", "--output_name", "x"], "--output_dir no is not a folder"),
        (["--model_url_or_file", "plain.pth", "--output_dir", ".", "--output_name", "x"], "is no checkpoint of VISSL"),
    ]:
        with pytest.raises(UserError, match=message):
            convert(stand_in, *words)


def test_evaluation_shows_pictures_to_a_checkpoint_of_vissl_as_vissl_did(tmp_path):
    """Oracle: torchvision's network and normalisation."""
    checkpoint(tmp_path / "m.torch")
    encoders, _ = load_encoders(tmp_path / "m.torch")
    config = as_trained(encoders, EvaluationConfig(target_shape=(4, 64, 64), workers=0, precision="fp32"))
    items = find_images(ROOT / "training_data_2D")[:3]
    ours = embed("images", items, encoders, config)
    plain = torchvision.models.resnet18()
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(read_weights(tmp_path / "m.torch").state)
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    batch = next(iter(whole_files("images", items, config)))
    assert batch["low"].tolist() == [0, 0, 0] and batch["high"].tolist() == [255, 255, 255]
    pictures = normalise((batch["crops"][0].float() / 255).expand(-1, 3, -1, -1))
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(ours), plain.eval()(pictures), atol=1e-5)
    assert np.isfinite(embed("volumes", find_volumes(ROOT / "training_data_3D")[:2], encoders, config)).all()
    assert raw_pixels("images", items, config).shape == (3, 256)


# ---- the whole way


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
def test_catalogue_training_conversion_and_stage_2_follow_each_other(method, tmp_path):
    number = {"swav": "num_prototypes=[10]", "deepcluster": "num_clusters=[5,6,7]"}[method]
    small = [
        "config.OPTIMIZER.num_epochs=1",
        "config.DATA.TRAIN.BATCHSIZE_PER_REPLICA=30",
        "config.DATA.NUM_DATALOADER_WORKERS=0",
        f"config.{LOSSES[method]}.{number}",
    ]
    small += "--arch resnet18 --nmb_crops 2 --size_crops 32 --precision fp32".split()
    command = [ROOT / "vissl/tools/run_distributed_engines.py", *published(method), *small]
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("stands in for VISSL") == 1 and "2 process(es)" in done.stdout
    file = tmp_path / FOLDERS[method] / "model_final_checkpoint_phase0.torch"
    weights, content = read_weights(file), torch.load(file)
    assert (weights.origin, weights.method, weights.config["normalise"]) == ("VISSL", method, "imagenet")
    assert content["iteration"] == 4 and weights.heads["prototypes.heads.0"].shape[1] == 128
    own = read_weights(file.parent / f"run/resnet_{method}2D.pth")
    assert all(torch.equal(weights.state[name], value) for name, value in own.state.items())

    file.unlink()  # as if it had been stopped between training and writing
    again = run(*command, cwd=tmp_path)
    assert again.returncode == 0 and "nothing is left to train" in again.stdout and file.exists()
    assert all(torch.equal(read_weights(file).state[name], value) for name, value in own.state.items())

    converter = ROOT / "vissl/extra_scripts/convert_vissl_to_torchvision.py"
    words = ["--model_url_or_file", file, "--output_dir", "weights", "--output_name", method]
    done = run(converter, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    volumes = ["--data_path", ROOT / "training_data_3D", "--target_shape", 8, 24, 24, "--batch_size", 4, "--epochs", 1]
    stage_2 = [ROOT / f"mask_{method}_3D.py", "--arch", "resnet18", "--workers", 0, *volumes]
    done = run(*stage_2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    straight = [
        "--resnet_pretrained",
        file.relative_to(tmp_path / "weights"),
        "--dump_path",
        "runs/b",
        "--checkpoint_name",
        "b",
    ]
    assert run(*stage_2, *straight, cwd=tmp_path).returncode == 0
    one, other = (torch.load(tmp_path / "weights" / name)["model"] for name in (f"mask_{method}.pth", "b"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_an_override_without_counterpart_ends_with_code_2_and_nothing_written(tmp_path):
    words = [*published("swav"), "config.LOG_FREQUENCY=3"]
    done = run(ROOT / "vissl/tools/run_distributed_engines.py", *words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("error:") == 1 and "config.LOG_FREQUENCY" in done.stderr
    assert not list(tmp_path.iterdir())
