"""The benchmarks run, agree with what they are compared with, and a lost speed is told."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from measure import Case, compare  # noqa: E402
from run import Flags, lost, read_stored, stored_file, write_stored  # noqa: E402


def test_a_comparison_gives_medians_ratio_and_rate():
    case = Case("sleep", "short", lambda: time.sleep(0.02), lambda: time.sleep(0.08), "longer sleep", count=4, unit="nap")
    result = compare(case, rounds=3)
    assert 3 < result.ratio < 5 and 0.02 <= result.ours_seconds < 0.06 <= result.peer_seconds
    assert result.rate == pytest.approx(4 / result.ours_seconds)


def test_what_does_not_agree_is_not_timed():
    def differ():
        raise AssertionError("another result")

    with pytest.raises(AssertionError, match="another result"):
        compare(Case("a", "b", lambda: None, lambda: None, "c", agree=differ))


def test_a_ratio_more_than_a_fifth_below_the_stored_one_is_a_loss(tmp_path, monkeypatch):
    monkeypatch.setattr("run.HERE", tmp_path)
    flags = Flags(threads=1)
    result = compare(Case("sleep", "short", lambda: time.sleep(0.01), lambda: time.sleep(0.02), "longer"), rounds=3)
    assert read_stored(flags) == {}
    write_stored(flags, [result])
    stored = read_stored(flags)
    assert not lost(result, stored)
    content = json.loads(stored_file(flags).read_text(encoding="utf-8"))
    content["results"][0]["ratio"] *= 1.3
    stored_file(flags).write_text(json.dumps(content), encoding="utf-8")
    assert lost(result, read_stored(flags))


@pytest.mark.slow
def test_all_benchmarks_run_and_agree_with_what_they_are_compared_with():
    done = subprocess.run([sys.executable, BENCHMARKS / "run.py", "--quick"], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert done.stdout.count(" × ") > 20


@pytest.mark.slow
def test_nothing_is_lost_against_the_ratios_stored_for_this_kind_of_processor():
    done = subprocess.run([sys.executable, BENCHMARKS / "run.py", "--check"], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_an_unknown_part_is_one_sentence_and_code_2():
    done = subprocess.run([sys.executable, BENCHMARKS / "run.py", "--only", "vews"], capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and "--only vews is no part; there are views" in done.stderr and "Traceback" not in done.stderr
