"""Becomes the program in its arguments, which then ends when the process that started it does. Stage: process.

Run as `python -I -S launch.py PARENT PROGRAM ARGUMENT…`: a process with threads must not run Python code between fork
and exec, so the kernel is asked in a process of its own, which then turns into the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ties the process to its parent and becomes the program."""
    parent, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(parent):
        sys.exit("the process that started this one is gone")
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main()
