import os
import signal

import pytest

from datasets.pool import Died, in_processes


def double(number: int) -> int:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number < 0:
        raise ValueError("below zero")
    return 2 * number


def test_every_item_is_done_once():
    assert sorted(in_processes(double, [3, 1, 2] * 10, 2)) == [(i, 2 * [3, 1, 2][i % 3]) for i in range(30)]
    assert list(in_processes(double, [], 2)) == []


def test_an_item_that_kills_its_process_is_named_and_the_others_are_done():
    items = [*range(20), 13]
    results = dict(in_processes(double, items, 2))
    died = {number for number, result in results.items() if isinstance(result, Died)}
    assert {items[number] for number in died} == {13} and len(died) == 2
    assert all(results[i] == 2 * items[i] for i in range(len(items)) if i not in died)


def test_what_a_process_raises_is_raised():
    with pytest.raises(ValueError, match="below zero"):
        list(in_processes(double, [1, -1], 1))
