"""Commands that segment a stream: ``run`` and ``demo``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from rvos_edge.cli.application import BackendOption, BundleOption, DeviceOption, QuietOption, app
from rvos_edge.cli.options import BARE_ADDRESS, RunOptions
from rvos_edge.cli.settings import camera_options, load_options, save_options

_ADDRESS = re.compile(r"\d{4,5}|(?!synthetic:)[^\s/]*:[^\s/]+")
"""A port, or HOST:PORT; anything else after ``--serve`` is the source or a query."""
_CAMERAS = "rvos_edge.cameras"
"""Key of a file's cameras in the context of the command."""
_EXAMPLES = """Examples:

rvos-edge run clip.mp4 "a dog" "the person on the left"

rvos-edge run 0 "a person" --window

rvos-edge run 'videos/*.mp4' "a dog" --masks masks --threshold 0.6 --workers 4

Exit codes: 0 done, 1 a defect of the program, 2 bad input, 130 interrupted."""


class _RunCommand(TyperCommand):
    """Command whose ``--serve`` may stand alone, for which Typer has no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        completed: list[str] = []
        for argument, following in zip(args, [*args[1:], "--"], strict=False):
            completed.append(argument)
            if argument == "--serve" and not _ADDRESS.fullmatch(following):
                completed.append(BARE_ADDRESS)
        return super().parse_args(ctx, completed)


def _takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of ``RunOptions`` as options, in place of its ``**given``."""
    signature, hints = inspect.signature(command, eval_str=True), get_type_hints(RunOptions, include_extras=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "given"]
    for field in fields(RunOptions):
        kind = inspect.Parameter.KEYWORD_ONLY
        own.append(inspect.Parameter(field.name, kind, default=field.default, annotation=hints[field.name]))
    command.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    return command


def _read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make a file's options the defaults of the command."""
    if path is not None:
        options = load_options(path)
        ctx.meta[_CAMERAS] = options.pop("cameras", None)
        ctx.default_map = {**(ctx.default_map or {}), **options}
    return path


@app.command(cls=_RunCommand, epilog=_EXAMPLES)
@_takes_run_options
def run(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE QUERY",
            help="Video, picture, folder, glob, camera number, csi://0, URL, - (raw frames on stdin) or synthetic; "
            "then what to segment: sentences, and @FILE for a taught query.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of options; those of the command line count more. `cameras` in it are several sources by "
            "name (docs/services.md).",
            is_eager=True,
            callback=_read_config,
        ),
    ] = None,
    save_config: Annotated[Path | None, typer.Option(help="Write the options of this run there.")] = None,
    **given: Any,
) -> None:
    """Segment what the queries name, frame after frame; of many files (a glob or a folder of videos) one by one.

    Outputs replace what an earlier run wrote, and nothing else: other files and folders, and the source, are refused.
    """
    rest = list(words or ())
    if rest and getattr(ctx.get_parameter_source("source"), "name", "") != "COMMANDLINE":
        given["source"] = rest.pop(0)
    if rest:
        named = getattr(ctx.get_parameter_source("query"), "name", "") == "COMMANDLINE"
        given["query"] = [*rest, *((given["query"] or ()) if named else ())]
    cameras = ctx.meta.get(_CAMERAS)
    if cameras is not None:
        from rvos_edge.cli.cameras import run_cameras

        run_cameras(camera_options(given, cameras))
        return
    options = RunOptions(**given)
    if save_config is not None:
        save_options(save_config, given)
    from rvos_edge.streaming.batch import find_files

    files = find_files(given["source"])
    if files is None:
        from rvos_edge.cli.single import run_single

        run_single(options)
    else:
        from rvos_edge.cli.batch import run_batch

        run_batch(options, files)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder of demo.mp4 and demo.png.")] = Path("rvos-edge-demo"),
    frames: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="A synthetic scene, whose exact masks are known, in place of the clip.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the scene of --self-test.")] = 2,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Segment a clip that comes with the package: needs no data and no camera."""
    from rvos_edge.opening import open_segmenter

    segmenter = open_segmenter(bundle, device=device, backend=backend)
    if self_test:
        from rvos_edge.self_test import run_self_test

        run_self_test(segmenter, output, frames=100 if frames is None else frames, seed=seed)
    else:
        from rvos_edge.demo import run_demo

        run_demo(segmenter, output, frames=frames, quiet=quiet)
