import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config, JointConfig, as_plain, parse, write_config
from engine.errors import UserError


@dataclass(kw_only=True)
class Example(JointConfig):
    queue_length: int | Literal["auto"] = "auto"  # rows
    checkpoint_name: str = "x.pth"


def test_flags_of_several_values_work_as_people_write_them():
    config = parse(Example, ["--target_shape", "32", "64", "96", "--nmb_prototypes", "30", "30", "--base_lr=1e-2"])
    assert config.target_shape == (32, 64, 96)
    assert config.nmb_prototypes == (30, 30)
    assert config.base_lr == 0.01
    assert parse(Example, ["--nmb_prototypes", "auto"]).nmb_prototypes == "auto"


def test_switches_take_true_and_false_and_nothing():
    assert parse(Example, ["--use_fp16", "true"]).precision == "fp16"
    assert parse(Example, ["--use_fp16", "false"]).precision == "auto"
    assert parse(Example, ["--overwrite"]).overwrite
    assert not parse(Example, ["--overwrite", "--no_overwrite"]).overwrite


@pytest.mark.parametrize("words", [["--local-rank=1"], ["--local_rank", "1"], ["--local-rank", "0"]])
def test_the_launchers_local_rank_is_ignored(words):
    assert parse(Example, [*words, "--epochs", "3"]).epochs == 3


@pytest.mark.parametrize(
    "words, message",
    [
        (["--epoch", "3"], "--epoch is not a flag.*--epochs"),
        (["--zzz"], "--help lists the flags"),
        (["--epochs", "many"], "epochs"),
        (["--target_shape", "1", "2"], "target_shape"),
        (["--precision", "fp8"], "fp8.*auto"),
    ],
)
def test_wrong_flags_are_one_sentence(words, message):
    with pytest.raises(UserError, match=message) as error:
        parse(Example, words)
    assert "\n" not in str(error.value) and "│" not in str(error.value)


def test_a_file_of_constants_stands_before_the_flags(tmp_path):
    (tmp_path / "c.yaml").write_text("epochs: 7\nbatch_size: 9\noverwrite: true\nnmb_prototypes: [5, 6]\n", encoding="utf-8")
    config = parse(Example, ["--config", str(tmp_path / "c.yaml"), "--epochs", "8"])
    assert (config.epochs, config.batch_size, config.overwrite, config.nmb_prototypes) == (8, 9, True, (5, 6))


@pytest.mark.parametrize("text, message", [("epoch: 3", "--epoch in .*c.yaml"), ("- 3", "holds no"), ("a: [", "not YAML")])
def test_a_wrong_file_of_constants_is_named(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        parse(Example, ["--config", str(tmp_path / "c.yaml")])
    with pytest.raises(UserError, match=r"d.yaml cannot be read \(No such file"):
        parse(Example, ["--config", str(tmp_path / "d.yaml")])


def flag_words(config):
    words = []
    for name, value in as_plain(config).items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_field_survives_command_line_file_command_line(tmp_path_factory, data):
    simple = {
        int: st.integers(1, 10**5).map(lambda number: 8 * number),
        float: st.floats(1e-9, 0.999),
        bool: st.booleans(),
        str: st.sampled_from(["", "a b", "x/é"]),
    }
    values = {f.name: data.draw(simple[f.type]) for f in dataclasses.fields(Example) if f.type in simple}
    values |= {"config": "", "use_fp16": False, "nmb_prototypes": data.draw(st.sampled_from(["auto", (3,), (4, 5)]))}
    values |= {"target_shape": (1, 2, 3), "queue_length": data.draw(st.sampled_from(["auto", 12])), "view_policy": "one"}
    config = Example(**values)
    assert parse(Example, flag_words(config)) == config
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    write_config(config, path)
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) == {f.name for f in dataclasses.fields(Example)} | {
        "format_version"
    }
    assert parse(Example, ["--config", str(path)]) == dataclasses.replace(config, config=str(path))


def test_every_field_has_its_sentence():
    import inspect

    import engine.config as module

    for line in inspect.getsource(module).splitlines():
        if (
            line.startswith("    ")
            and ": " in line
            and " = " in line
            and line.strip().split(":")[0] in Config.__dataclass_fields__
        ):
            assert "  # " in line, line


def test_a_file_of_one_preset_and_the_flag_of_another_contradict_each_other(tmp_path):
    (tmp_path / "config.yaml").write_text("preset: default\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds the constants of preset default; leave out --preset released"):
        parse(Config, ["--config", str(tmp_path / "config.yaml"), "--preset", "released"])
    assert parse(Config, ["--config", str(tmp_path / "config.yaml")]).preset == "default"
