"""The memory of a process that works on one batch after the other."""

import ctypes
import platform
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""From glibc's malloc.h, see mallopt(3)."""


@cache
def keep_freed_blocks() -> None:
    """From here on glibc keeps up to 1 GiB of freed memory for what is asked for next; other libraries are left alone.

    By itself it returns large blocks to the system, and the next batch gets them back page by page, zeroed: a fifth of
    the time of an input gradient on digits, a third of a JPEG round trip's (benchmarks/README.md). How much it returns
    also depends on what the process did before.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)  # no block comes from the system by itself, to be returned when it is freed
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)
