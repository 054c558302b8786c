"""A forked child of the test's own process: it ends whatever happens in it, and nobody waits for it for ever.

The child is a copy of the whole of pytest. Without an end of its own, one that raises would go on with the next tests.
A script in an interpreter of its own needs none of this.
"""

import os
import signal
import time
import traceback
from collections.abc import Callable

import pytest

__all__ = ["in_child", "needs_fork"]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_child(function: Callable[[], object], *, seconds: float = 60.0) -> int:
    """Call `function` in a forked child and return the child's status: 0 if it returned, 1 if it raised, -9 if it had to be killed.

    What the child raises is written to stderr.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it is
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    deadline = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1])
