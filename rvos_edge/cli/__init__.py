"""The command line: ``rvos-edge run``, ``train``, ``export`` and so on.

Commands are thin: they read options, call one function and print what it returns. What a command needs is imported
inside it, so that ``--help`` is fast and the runtime commands work without the extras.
"""

from rvos_edge.cli import benchmarks, bundles, stream, training
from rvos_edge.cli.app import app, main

__all__ = ["app", "benchmarks", "bundles", "main", "stream", "training"]
