"""The command line: ``rvos-edge run``, ``train``, ``export`` and so on.

Commands are thin: they read options, call one function and print what it returns. What a command needs is imported
inside it, so that ``--help`` is fast and the runtime commands work without the extras.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rvos_edge.streaming.signals import terminate_as_interrupt

if TYPE_CHECKING:
    from rvos_edge.cli.application import app

__all__ = ["app", "main"]


def main() -> None:
    """The console script. SIGINT, SIGTERM and SIGHUP end it in order from its first moment on."""
    try:
        with terminate_as_interrupt():
            for stream in (sys.stdout, sys.stderr):
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(errors="backslashreplace")  # a terminal may be ASCII, a query need not
            __getattr__("app")(prog_name="rvos-edge")
    except KeyboardInterrupt:
        sys.exit(130)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from rvos_edge.cli import benchmarks, bundles, stream, teaching, training  # noqa: F401 (they add their commands)
    from rvos_edge.cli.application import app

    return app
