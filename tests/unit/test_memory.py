"""What a worker's process keeps; each case in a process of its own, since nothing of it can be undone."""

import platform
import subprocess
import sys

import pytest

REQUESTS = """
import gc, resource
from streams import memory
if {settles}:
    memory.settle()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def request():
    return b"".join([b"x" * 500_000, b"y" * 500_000])
request()
before = faults()
for _ in range(50):
    request()
print(faults() - before, gc.get_freeze_count() > 0, gc.get_threshold()[0])
"""


def what_is_kept(*, settles: bool) -> tuple[int, str, str]:
    program = REQUESTS.format(settles=settles)
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    faults, frozen, threshold = said.stdout.split()
    return int(faults), frozen, threshold


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep what they keep")
def test_large_buffers_are_used_again() -> None:
    unsettled, settled = what_is_kept(settles=False)[0], what_is_kept(settles=True)[0]
    assert settled < 50  # there is room for other things that happen
    assert unsettled > 5_000


def test_garbage_is_looked_for_seldom_and_among_what_is_new() -> None:
    assert what_is_kept(settles=True)[1:] == ("True", "100000")
