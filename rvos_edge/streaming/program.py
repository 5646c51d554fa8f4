"""Programs that run at the other end of a pipe."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from typing import IO


class Program:
    """A program that frames are read from or written to.

    It has a session of its own, so that Ctrl-C does not reach it: `end` ends it. Its stderr is kept.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, command: list[str], *, reads: bool = False, writes: bool = False) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe that is not emptied would stop the program)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
                stdout=subprocess.PIPE if writes else subprocess.DEVNULL,
                stderr=self._errors,
                bufsize=0,
                start_new_session=True,
            )
        except BaseException:
            self._errors.close()
            raise

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it, also from another thread: reading from it and writing to it fail then."""
        self._process.kill()

    def end(self, *, patience: float = 0.0) -> int:
        """Close the pipes, give it `patience` seconds to finish, then terminate and at last kill it; may be repeated.

        Returns:
            Its exit status, negative if a signal ended it.
        """
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        if patience > 0:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        if self.running():
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
        if self.running():
            self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process.wait()

    def said(self) -> str:
        """The last line on its stderr, empty if there is none."""
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")
