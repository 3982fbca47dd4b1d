"""What this process holds, and what becomes of freed memory: a large model's goes back, a small one's is kept."""

import subprocess
import sys

import pytest

FREE_EVERY_OTHER = """
import sys, torch
from hornbook.training.memory import tune_allocator, used_memory_bytes
tune_allocator(int(sys.argv[1]))
# The C library learns from what is freed that such blocks come and go, and keeps later ones.
for _ in range(2):
    blocks = [torch.ones(2**20) for _ in range(100)]
    blocks = blocks[1::2]
held = [torch.ones(2**20) for _ in range(100)]
before = used_memory_bytes(torch.device("cpu"))
held = held[::2]
print((before - used_memory_bytes(torch.device("cpu"))) // 2**20)
"""

FAULTS_OF_A_STEP = """
import resource, sys, torch
from hornbook.training.memory import tune_allocator
tune_allocator(int(sys.argv[1]))
def step():
    blocks = [torch.ones(2**20) for _ in range(40)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own count, and asks glibc")
def test_freed_blocks_of_a_large_model_go_back_though_others_lie_between_them() -> None:
    def given_back_mib(model_bytes: int) -> int:
        command = [sys.executable, "-c", FREE_EVERY_OTHER, str(model_bytes)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert given_back_mib(2**30) > 150  # of 200
    assert given_back_mib(2**20) < 150


@pytest.mark.skipif(sys.platform != "linux", reason="counts Linux's page faults, and asks glibc")
def test_a_small_model_keeps_its_pages_from_step_to_step_and_a_large_one_asks_for_them_anew() -> None:
    def page_faults(model_bytes: int) -> int:
        command = [sys.executable, "-c", FAULTS_OF_A_STEP, str(model_bytes)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert page_faults(2**20) < 100
    assert page_faults(2**30) > 1000  # of 40,960 pages of 4 KiB
