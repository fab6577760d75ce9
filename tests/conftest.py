import ctypes
import gc

import pytest

from engine.processes import keep_freed_memory


@pytest.fixture(autouse=True, scope="module")
def memory_goes_back():
    """Scripts that run in this process keep what they free (`keep_freed_memory`): after hundreds of them that is gigabytes."""
    yield
    gc.collect()
    keep_freed_memory(False)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
