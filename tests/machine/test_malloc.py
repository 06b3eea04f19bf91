import os
import platform
import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import sys
import torch
from robustbench_twicing.machine.malloc import keep_freed_blocks

torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed_blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks = [torch.ones(2**20) for _ in range(4)]  # 4 MB each: 4,096 pages in all
for _ in range(100):
    blocks.clear()
    blocks += [torch.ones(2**20) for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

RETURNED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(2**17), "MALLOC_TRIM_THRESHOLD_": str(2**17)}
"""Where glibc begins by itself, before it learns from what is freed, which differs from run to run."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**33, reason="about glibc's allocator, 64 bit")
def test_freed_blocks_are_not_fetched_from_the_system_again() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", SCRIPT, how]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | RETURNED_AT_ONCE)
        return int(run.stdout)

    pages = 4 * 2**22 // resource.getpagesize()
    assert faults("fresh") > 50 * pages
    assert faults("kept") < 5 * pages
