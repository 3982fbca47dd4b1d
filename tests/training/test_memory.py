"""What this process holds, and that a large model's freed blocks go back to the system."""

import subprocess
import sys

import pytest

FREE_EVERY_OTHER = """
import sys, torch
from hornbook.training.memory import give_back_large_blocks, used_memory_bytes
give_back_large_blocks(int(sys.argv[1]))
# The C library learns from what is freed that such blocks come and go, and keeps later ones.
for _ in range(2):
    blocks = [torch.ones(2**20) for _ in range(100)]
    blocks = blocks[1::2]
held = [torch.ones(2**20) for _ in range(100)]
before = used_memory_bytes(torch.device("cpu"))
held = held[::2]
print((before - used_memory_bytes(torch.device("cpu"))) // 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own count, and asks glibc")
def test_freed_blocks_of_a_large_model_go_back_though_others_lie_between_them() -> None:
    def given_back_mib(model_bytes: int) -> int:
        command = [sys.executable, "-c", FREE_EVERY_OTHER, str(model_bytes)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert given_back_mib(2**30) > 150  # of 200
    assert given_back_mib(2**20) < 150
