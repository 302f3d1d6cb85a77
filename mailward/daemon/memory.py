"""Giving back memory that only start-up needed. Never data: only pages the kernel can read again from their file."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator

_MADV_DONTNEED = 4
_M_ARENA_MAX = -8
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-.p \S+ \S+ [1-9]\d* +/")


def release_library_pages() -> None:
    """Unmap the code of libraries that importing them ran once; what is used again comes back from the page cache.

    Worth 8 MB, an eighth of a daemon. Only mappings nobody can write to and nobody has changed (so not what the dynamic
    linker has relocated) are touched; everything else keeps its pages.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.malloc_trim(0)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for start, end in list(_unchanged_file_mappings()):
        libc.madvise(start, end - start, _MADV_DONTNEED)


def share_one_heap() -> None:
    """Have all threads of this process allocate from one heap instead of one each: worth 300 kB a worker.

    They hold Python's lock most of the time, so they hardly ever meet there.
    """
    ctypes.CDLL(None, use_errno=True).mallopt(_M_ARENA_MAX, 1)


def _unchanged_file_mappings() -> Iterator[tuple[int, int]]:
    """Yield the address ranges of read-only mappings of files that have no page of their own."""
    mapping: tuple[int, int] | None = None
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as smaps:
        for line in smaps:
            match = _MAPPING.match(line)
            if match:
                mapping = int(match.group(1), 16), int(match.group(2), 16)
            elif "-" in line[:17]:
                mapping = None
            elif mapping and line.startswith("Anonymous:") and line.split()[1] == "0":
                yield mapping
