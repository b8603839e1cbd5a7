"""Memory that one step frees is there for the next, without the system's help."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource
import sys
from webui.engine.memory.allocator import keep_pages
if sys.argv[1] == "keep":
    assert keep_pages()
import torch
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(10 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
step()
print(min(step() for _ in range(5)))  # a system short of memory takes pages away now and then
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")
def test_freed_memory_is_used_again_instead_of_fetched_anew() -> None:
    assert faults("as it is") > 1000, "four tensors of 40 MB, each fetched page by page"
    assert faults("keep") < 100
