import numpy as np
import pytest
import torch

from engine.errors import speaking_to_people


def said(error, capsys):
    with pytest.raises(SystemExit) as stop, speaking_to_people():
        raise error
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_used_up_memory_is_told_with_the_settings_to_lower(error, capsys):
    code, sentence = said(error, capsys)
    assert code == 1 and "lower --batch_size" in sentence and "the same command goes on" in sentence


def test_memory_that_numpy_does_not_get_is_told_so(capsys):
    with pytest.raises(SystemExit) as stop, speaking_to_people():
        np.ones(2**58, np.uint8)
    assert stop.value.code == 1 and "the memory is used up" in capsys.readouterr().err


def test_memory_that_this_machine_refuses_is_told_so(capsys):
    with pytest.raises(SystemExit) as stop, speaking_to_people():
        torch.empty(2**60, dtype=torch.uint8)
    assert stop.value.code == 1 and "the memory is used up" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, reason",
    [
        ("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234", "has ended"),
        ("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 12000ms for recv operation", "did not answer in time"),
        (
            "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3, OpType=ALLREDUCE)",
            "did not answer in time",
        ),
        ("NCCL error in: ProcessGroupNCCL.cpp, remote process exited or there was a network error", "has ended"),
    ],
)
def test_a_lost_process_is_told_with_what_became_of_the_state(text, reason, capsys):
    code, sentence = said(RuntimeError(text), capsys)
    assert code == 1 and f"another process {reason}" in sentence and "last saved state is kept" in sentence


def test_a_bug_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="a bug"), speaking_to_people():
        raise RuntimeError("a bug")
