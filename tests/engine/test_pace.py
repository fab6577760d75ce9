import torch

from engine.pace import SETTLED, Expectation, peak_memory, progress_line


def test_the_time_that_is_left_is_told_once_after_the_first_steps_without_the_very_first():
    now = [0.0]
    expectation = Expectation(1000, clock=lambda: now[0])
    said = []
    for step in range(1, 60):
        now[0] += 500 if step == 1 else 7.2
        said.append(expectation.after(step))
    (sentence,) = [one for one in said if one]
    assert said.index(sentence) == SETTLED
    assert f"a step takes 7.2 s: the {999 - SETTLED} that are left take about 1 h 59 min, until " in sentence


def test_it_counts_from_where_a_run_goes_on_and_is_silent_about_little():
    now = [0.0]
    expectation, short = Expectation(1000, clock=lambda: now[0]), Expectation(1000, clock=lambda: now[0] / 1000)
    for step in range(501, 501 + SETTLED):
        assert expectation.after(step) is None and short.after(step) is None
        now[0] += 2
    assert f"the {499 - SETTLED} that are left" in expectation.after(501 + SETTLED)
    assert short.after(501 + SETTLED) is None


def test_the_peak_of_memory_is_that_of_this_process():
    before = peak_memory(torch.device("cpu"))
    held = bytearray(b"x") * 100_000_000
    after = peak_memory(torch.device("cpu"))
    assert 0.01 < before <= after < before + 0.2 and after > 0.1 and held


def test_figures_that_there_are_not_are_left_out_of_the_line():
    line = progress_line({"loss": 1, "data_wait": 0.5, "items_per_second": 3, "memory_gb": 10}, "volumes")
    assert line == "loss 1.000, 3 volumes/s, 50% waiting for data, 10 GB"
