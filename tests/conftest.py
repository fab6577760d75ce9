import ctypes
import gc

import pytest

from engine.processes import keep_freed_memory


@pytest.fixture(autouse=True, scope="module")
def memory_goes_back():
    """A script that runs in this process keeps what it frees (`keep_freed_memory`): after hundreds of them that is gigabytes."""
    yield
    gc.collect()
    keep_freed_memory(False)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
