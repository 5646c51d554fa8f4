"""The application that the commands join, its errors, and the options that several commands share."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from rvos_edge import __version__
from rvos_edge.errors import UserError

_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "transformers", "safetensors"), "train"),
    **dict.fromkeys(("tensorboard", "PIL", "matplotlib"), "train"),
    **dict.fromkeys(("onnx", "onnxscript", "onnx_ir"), "export"),
    **dict.fromkeys(("starlette", "uvicorn", "websockets", "prometheus_client"), "serve"),
}
"""Import name -> the extra of this package that installs it."""


_ORDER = (
    "run",
    "demo",
    "teach",
    "label",
    "train",
    "average",
    "restore",
    "eval",
    "report",
    "data",
    "export",
    "build",
    "verify",
    "inspect",
    "bundles",
    "bench",
    "doctor",
)


class _Commands(TyperGroup):
    """Turns bad input and missing extras into one line on stderr and exit code 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except UserError as error:
            message = str(error)
        except MemoryError:
            message = "memory ran out; close other programs, or choose a smaller --size or fewer queries."
        except ImportError as error:
            # An extension module that is interrupted while it loads reports that as an import that failed.
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise typer.Exit(130) from None
            extra = _EXTRAS.get((error.name or "").partition(".")[0])
            if isinstance(error, ModuleNotFoundError) and extra is not None:
                message = (
                    f"'{ctx.invoked_subcommand}' needs {error.name}, which is not installed; "
                    f'run: pip install "rvos-edge[{extra}]", or in a clone: pip install ".[{extra}]"'
                )
            elif ".so" in str(error):
                message = f"a library cannot be loaded ({error}); rvos-edge doctor says what to do."
            else:
                raise
        line = Text(f"Error: {' '.join(message.split())}", style="red")
        Console(stderr=True).print(line, soft_wrap=True)
        raise typer.Exit(2)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if category.__module__.startswith("rvos_edge"):
        Console(stderr=True).print(Text(f"Warning: {message}.", style="yellow"), soft_wrap=True)
    else:
        print(warnings.formatwarning(message, category, *where[:2]), end="", file=sys.stderr)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Segment what a sentence names, in videos and on cameras.",
    epilog="""Examples:

rvos-edge demo

rvos-edge run clip.mp4 "a dog" "the person on the left"

rvos-edge run 0 "a person" --serve

Exit codes: 0 done, 1 a defect of the program, 2 bad input, 130 interrupted.""",
)

MODEL, RESULTS = "Model and machine", "Results"
"""Panels of the help."""


def bundle_names() -> list[str]:
    """Names for completion."""
    from rvos_edge.catalogue import list_bundles

    return list(list_bundles())


def _backends() -> list[str]:
    from rvos_edge.engines.registry import BACKENDS

    return ["auto", *BACKENDS]


BundleOption = Annotated[
    Path | None,
    typer.Option(
        help="Name or folder of a bundle; edge, which comes with the package, if left out.",
        rich_help_panel=MODEL,
        autocompletion=bundle_names,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, or cuda:1 for the second GPU.",
        rich_help_panel=MODEL,
        autocompletion=lambda: ["auto", "cpu", "cuda", "cuda:1"],
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="auto for the fastest that works, or one of docs/engines.md.",
        rich_help_panel=MODEL,
        autocompletion=_backends,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say also how long each stage takes.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rvos-edge {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def doctor() -> None:
    """Say what this machine has, what is missing and how to get it."""
    from rvos_edge.doctor import print_report

    print_report()
