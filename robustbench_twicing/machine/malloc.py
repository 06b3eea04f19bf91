"""The memory of a process that works on one batch after the other."""

import ctypes
import platform
from collections.abc import Mapping
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""From glibc's malloc.h, see mallopt(3)."""

KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**30}
"""No block comes from the system by itself, to be returned to it when it is freed; up to 1 GiB that is free stays."""


@cache
def keep_freed_blocks() -> None:
    """From here on glibc keeps freed memory for what is asked for next (`KEPT`); other libraries are left alone.

    By itself it returns large blocks to the system, and the next batch gets them back page by page, zeroed: a fifth of
    the time of an input gradient on digits, a third of a JPEG round trip's (benchmarks/README.md). How much it returns
    also depends on what the process did before.
    """
    tell_glibc(KEPT)


def tell_glibc(settings: Mapping[int, int]) -> None:
    """Each of the settings to mallopt(3). Nothing happens with another C library."""
    if platform.libc_ver()[0] == "glibc":
        for setting, value in settings.items():
            ctypes.CDLL(None).mallopt(setting, value)
