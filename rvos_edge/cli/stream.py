"""Commands that segment a stream: ``run`` and ``demo``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rvos_edge.cli.application import (
    MODEL,
    RESULTS,
    BackendOption,
    BundleOption,
    DeviceOption,
    QuietOption,
    VerboseOption,
    app,
)
from rvos_edge.cli.options import RunOptions
from rvos_edge.cli.serving import (
    BasePathOption,
    CertificateOption,
    OriginOption,
    ServeOption,
    ServingCommand,
    TokenOption,
)
from rvos_edge.cli.settings import camera_options, load_options, save_options
from rvos_edge.result import Overlap

_input = partial(typer.Option, rich_help_panel="Source and queries")
_output = partial(typer.Option, rich_help_panel=RESULTS)
_mask = partial(typer.Option, rich_help_panel="Masks")
_motion = partial(typer.Option, rich_help_panel="Motion")
_model = partial(typer.Option, rich_help_panel=MODEL)
_many = partial(typer.Option, rich_help_panel="Many files")
_CAMERAS = "rvos_edge.cameras"
"""Key of a file's cameras in the context of the command."""
_EXAMPLES = """Examples:

rvos-edge run clip.mp4 "a dog" "the person on the left"

rvos-edge run 0 "a person" --window

rvos-edge run 'videos/*.mp4' "a dog" --masks masks --threshold 0.6 --workers 4

Exit codes: 0 done, 1 a defect of the program, 2 bad input, 130 interrupted."""


def _read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make a file's options the defaults of the command."""
    if path is not None:
        options = load_options(path)
        ctx.meta[_CAMERAS] = options.pop("cameras", None)
        ctx.default_map = {**(ctx.default_map or {}), **options}
    return path


@app.command(cls=ServingCommand, epilog=_EXAMPLES)
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
    source: Annotated[str | None, _input(help="The source, in place of the first argument.")] = None,
    query: Annotated[list[str] | None, _input(help="A query, after those of the arguments; repeatable.")] = None,
    query_file: Annotated[Path | None, _input("--queries", help="Text file of queries, one a line.")] = None,
    frames: Annotated[int | None, _input(help="Stop after so many frames.")] = None,
    realtime: Annotated[
        bool,
        _input("--realtime", help="Play a file at its own speed and drop the frames that come too late."),
    ] = False,
    raw: Annotated[
        str | None,
        _input(help="Layout of raw frames on stdin: WIDTHxHEIGHT@FPS:PIXELS, as 1280x720@30:bgr24."),
    ] = None,
    wait: Annotated[bool, _input("--wait", help="Wait for a camera or stream that is not there yet.")] = False,
    reconnect: Annotated[
        float | None,
        _input(help="Give up a lost camera or stream after so many seconds; never if left out."),
    ] = None,
    open_timeout: Annotated[float | None, _input(help="Seconds for a stream to open; 30 if left out.")] = None,
    read_timeout: Annotated[
        float | None,
        _input(help="Seconds without a picture after which a stream is lost; it follows the stream if left out."),
    ] = None,
    transport: Annotated[
        str, _input(help="Way of RTSP's pictures: tcp or udp.", autocompletion=lambda: ["tcp", "udp"])
    ] = "tcp",
    output: Annotated[
        list[str] | None,
        _output(
            help="Place of the overlay: a video (.mp4, .mkv, .mov, .webm, .gif), a picture (.png, .jpg), rtmp:// or "
            "rtsp:// (by ffmpeg), /dev/videoN (v4l2loopback), - for raw frames on stdout; repeatable. Without any "
            "output, files get a new folder in rvos-edge-out."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        _output(help="Write one indexed PNG per frame into this folder; with several queries each has a folder in it."),
    ] = None,
    json: Annotated[str | None, _output(help="Write one JSON line per frame here; - is stdout.")] = None,
    rle: Annotated[
        str | None,
        _output(help="Write masks as COCO run lengths here, one JSON line per query; - is stdout."),
    ] = None,
    events: Annotated[
        list[str] | None,
        _output(
            help="Tell as JSON when a query appears, is gone or returns and a camera is lost or back: to a file "
            "(lines; - is stdout), http(s)://... (POST) or mqtt(s)://HOST/TOPIC; repeatable."
        ),
    ] = None,
    zone: Annotated[
        list[str] | None,
        _output(
            help="With --events: tell when an object enters, leaves or crosses NAME=X,Y X,Y ..., an area or with two "
            "points a line, in shares of the frame; repeatable."
        ),
    ] = None,
    per_object: Annotated[bool, _output(help="With --events: every part of a mask is an object of its own.")] = False,
    segment: Annotated[
        str | None, _output(help="Cut videos and JSON lines into files with the time in their names, such as 10m each.")
    ] = None,
    keep: Annotated[str | None, _output(help="With --segment: remove segments older than this, such as 7d.")] = None,
    coco: Annotated[str | None, _output(help="Write a COCO file (.json): images, masks, a category per query.")] = None,
    dataset: Annotated[
        Path | None, _output(help="Write a data set into this folder: pictures, COCO's instances.json, YOLO's labels.")
    ] = None,
    cutout: Annotated[
        str | None,
        _output(
            help="Write what is masked on a transparent ground: a picture (.png), a video (.mov, .webm), a folder."
        ),
    ] = None,
    mask_video: Annotated[str | None, _output(help="Write the masks in white on black: a video or a picture.")] = None,
    window: Annotated[bool, _output("--window", help="Show the overlay in a window.")] = False,
    serve: ServeOption = None,
    token: TokenOption = None,
    base_path: BasePathOption = None,
    allow_origin: OriginOption = None,
    certificate: CertificateOption = None,
    threshold: Annotated[float, _mask(help="Least probability of a pixel in a mask, 0 to 1.")] = 0.5,
    min_presence: Annotated[
        float,
        _mask(help="Least probability that the object is in the frame, 0 to 1; below it the mask is empty."),
    ] = 0.2,
    overlap: Annotated[
        Overlap,
        _mask(help="Pixels that several queries claim: all keep them, or the last query gets them."),
    ] = Overlap.KEEP,
    adapt: Annotated[
        str,
        _mask(
            help="once: each query settles on its own first sure masks; off: it does not.",
            autocompletion=lambda: ["off", "once"],
        ),
    ] = "off",
    opacity: Annotated[float, _mask(help="Opacity of the masks in the overlay, 0 to 1.")] = 0.5,
    flow: Annotated[bool, _motion("--flow/--no-flow", help="Use motion.")] = True,
    iterations: Annotated[int | None, _motion(help="Flow updates per frame; the bundle's if left out.")] = None,
    flow_every: Annotated[
        int | None,
        _motion(help="Compute the flow on every n-th frame and keep it between."),
    ] = None,
    still: Annotated[
        float | None,
        _motion(help="No flow while the picture changes by at most so many grey levels, such as 3."),
    ] = None,
    hold_fps: Annotated[
        float | None,
        _motion(help="Hold so many frames per second by computing less flow."),
    ] = None,
    bundle: BundleOption = None,
    size: Annotated[str | None, _model(help="Network input as HxW, one that the bundle has.")] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    runtime: Annotated[
        str,
        _model(
            help="python, or cpp where the C++ runtime is installed.",
            autocompletion=lambda: ["python", "cpp"],
        ),
    ] = "python",
    threads: Annotated[int | None, _model(help="CPU threads; one per physical core if left out.")] = None,
    workers: Annotated[
        int | None,
        _many(help="Many files: processes that share them and the cores."),
    ] = None,
    resume: Annotated[
        bool,
        _many("--resume/--no-resume", help="Many files: skip those that an earlier run finished."),
    ] = True,
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
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Segment what the queries name, frame after frame; of many files (a glob or a folder of videos) one by one.

    Outputs replace what an earlier run wrote, and nothing else: other files and folders, and the source, are refused.
    """
    given = {name: value for name, value in locals().items() if name in RunOptions.__dataclass_fields__}
    rest = list(words or ())
    if rest and getattr(ctx.get_parameter_source("source"), "name", "") != "COMMANDLINE":
        given["source"] = rest.pop(0)
    if rest:
        named = getattr(ctx.get_parameter_source("query"), "name", "") == "COMMANDLINE"
        given["query"] = [*rest, *((query or ()) if named else ())]
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
