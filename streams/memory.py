"""A worker's memory: what the next batch needs again is neither looked through nor given back after each."""

import ctypes
import gc
import platform

import structlog

log = structlog.stdlib.get_logger()

# Of glibc's `mallopt`, as its malloc.h numbers them.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
# Larger than what one request takes, and what is kept of it at most while nothing goes on. An answer may be
# larger, where a worker catches up: used again, those left holes behind that stayed.
LARGEST_BUFFER, KEPT = 1024 * 1024, 8 * 1024 * 1024


def settle() -> None:
    """Settle down for a long time of work: everything is imported, and the first batch is about to come."""
    # Python looks for garbage after every 700 new objects, which took a third of a busy worker's time.
    # Runs make next to no cycles: looking less often finds them all the same, and what is here by now
    # stays, so that it need not be looked through.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    # The requests of a busy worker have about a megabyte. The C library would give the memory of each back
    # to the system as soon as it is sent, and the system clear it before it hands it out for the next one.
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for what, size in ((MMAP_THRESHOLD, LARGEST_BUFFER), (TRIM_THRESHOLD, KEPT)):
            if not library.mallopt(what, size):
                log.warning("the C library does not keep large buffers", mallopt=what, bytes=size)
