import pytest

from benchmarks.finished import begin, finished
from engine.errors import UserError

ASKED = {"data_path": "/data/a", "size": (32, 32), "more": []}


def test_scores_are_those_of_the_run_that_was_asked_for_the_same(tmp_path):
    begin(tmp_path / "run", ASKED)
    assert not finished(tmp_path / "run", ASKED)
    (tmp_path / "run/results.json").write_text("{}", encoding="utf-8")
    assert finished(tmp_path / "run", ASKED)


@pytest.mark.parametrize(
    "other, message",
    [
        ({"data_path": "/data/b"}, r"\(data_path was /data/a, is /data/b\); choose another --output"),
        ({"size": (32, 64), "more": ["x"]}, "size was 32 32, is 32 64; more was empty, is x"),
        ({"epochs": 3}, "epochs was not given, is 3"),
    ],
)
def test_another_run_s_scores_are_refused_with_what_differs(tmp_path, other, message):
    begin(tmp_path, ASKED)
    (tmp_path / "results.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=f"{tmp_path} holds the scores of another run .*{message}"):
        finished(tmp_path, ASKED | other)
    with pytest.raises(UserError, match="is not given"):
        finished(tmp_path, {"data_path": "/data/a"})


@pytest.mark.parametrize("written", [None, "", "[1]"])
def test_scores_of_nobody_knows_what_are_refused(tmp_path, written):
    (tmp_path / "results.json").write_text("{}", encoding="utf-8")
    if written is not None:
        (tmp_path / "asked.json").write_text(written, encoding="utf-8")
    with pytest.raises(UserError, match=r"no asked.json that says what was asked for; choose another --output, or remove"):
        finished(tmp_path, ASKED)


def test_a_folder_that_cannot_be_written_is_told_before_the_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        begin(tmp_path / "file/run", ASKED)
