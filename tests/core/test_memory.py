"""The C library's memory settings."""

import ctypes
import os
import subprocess
import sys

import pytest

from moviegen_core.memory import keep_freed_memory

# Faults of the second of two large blocks: the first one's pages are there to be used again, or they are not.
_COUNT_FAULTS = """
import ctypes, resource, sys
from moviegen_core.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(16 << 20)
    ctypes.memset(block, 1, 16 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc on Linux")
def test_freed_blocks_are_used_again():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def faults(mode):
        run = subprocess.run([sys.executable, "-c", _COUNT_FAULTS, mode], env=environment, capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert faults("keep") < 100 < 1000 < faults("leave")


def test_the_users_own_settings_win(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
