"""Runs a command that dies with the process that started it: `python -m whence.cluster.leash PARENT COMMAND...`.

A worker whose supervisor was killed must not go on writing while its shard is started elsewhere. The kernel is asked
(Linux: PR_SET_PDEATHSIG, kept over exec) to kill this process with its parent, and the command takes its place. Other
systems have no such call: there a worker outlives a killed supervisor, and the lock that it holds on its shard keeps a
second one out.
"""

import ctypes
import os
import signal
import sys

_PARENT_DEATH_SIGNAL = 1


def leashed(command: tuple[str, ...]) -> list[str]:
    """The command that runs another until this process ends.

    Args:
        command: The other, with its arguments.

    Example:
        >>> leashed(("sleep", "1"))[-2:]
        ['sleep', '1']
    """
    return [sys.executable, "-m", "whence.cluster.leash", str(os.getpid()), *command]


def main(arguments: list[str]) -> None:
    """Become the command, unless the parent is gone already.

    Args:
        arguments: The parent's process number, then the command.
    """
    parent, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before the kernel was asked
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
