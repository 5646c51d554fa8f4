"""Commands that segment a stream: ``run`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvos_edge.cli.application import BackendOption, BundleOption, DeviceOption, app
from rvos_edge.cli.options import RunOptions
from rvos_edge.cli.serving import ServeOption, ServingCommand, TokenOption
from rvos_edge.result import Overlap


@app.command(cls=ServingCommand)
def run(
    source: Annotated[
        str,
        typer.Option(
            help="Video, image folder, glob, camera number, csi://0, URL, - (raw frames on stdin) or synthetic[:SEED]."
        ),
    ],
    query: Annotated[
        list[str] | None, typer.Option(help="What to segment: a sentence, or @FILE of a taught query; repeatable.")
    ] = None,
    query_file: Annotated[Path | None, typer.Option("--queries", help="Text file of queries, one a line.")] = None,
    bundle: BundleOption = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            help="Place of the overlay: a video (.mp4), rtmp:// or rtsp:// (by ffmpeg), /dev/videoN (v4l2loopback), "
            "- for raw frames on stdout; may be repeated."
        ),
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Write one indexed PNG per frame into this folder.")] = None,
    json: Annotated[str | None, typer.Option(help="Write one JSON line per frame here; - is stdout.")] = None,
    rle: Annotated[
        str | None, typer.Option(help="Write masks as COCO run lengths here, one JSON line per query; - is stdout.")
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="Show the overlay in a window.")] = False,
    overlap: Annotated[
        Overlap, typer.Option(help="Pixels that several queries claim: the last query gets them, or all keep them.")
    ] = Overlap.HIGHER,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Play a file at its own speed and drop the frames that come too late.")
    ] = False,
    raw: Annotated[
        str | None, typer.Option(help="Layout of raw frames on stdin: WIDTHxHEIGHT@FPS:PIXELS, as 1280x720@30:bgr24.")
    ] = None,
    reconnect: Annotated[
        float | None, typer.Option(help="Give up a lost camera or stream after so many seconds; never if left out.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
    size: Annotated[str | None, typer.Option(help="Network input as HxW, one that the bundle has.")] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; one per physical core if left out.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Flow updates per frame; the bundle's if left out.")] = None,
    every: Annotated[int | None, typer.Option(help="Compute the flow on every n-th frame and keep it between.")] = None,
    still: Annotated[
        float | None, typer.Option(help="No flow while the picture changes by at most so many grey levels, such as 3.")
    ] = None,
    hold_fps: Annotated[
        float | None, typer.Option(help="Hold so many frames per second by computing less flow.")
    ] = None,
    flow: Annotated[bool, typer.Option("--flow/--no-flow", help="Use motion.")] = True,
    opacity: Annotated[float, typer.Option(help="Opacity of the masks in the video, 0 to 1.")] = 0.5,
    workers: Annotated[int | None, typer.Option(help="Many files: processes that share them and the cores.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Many files: skip those that an earlier run finished.")
    ] = True,
    serve: ServeOption = None,
    token: TokenOption = None,
    keep_absent: Annotated[
        bool, typer.Option("--keep-absent", help="Give masks of what is not present in the frame, too.")
    ] = False,
    adapt: Annotated[
        str, typer.Option(help="once: each query settles on its own first sure masks; off: it does not.")
    ] = "off",
    runtime: Annotated[str, typer.Option(help="python, or cpp where the C++ runtime is installed.")] = "python",
) -> None:
    """Segment what the queries name, frame after frame; of many files (a glob or a folder of videos) one by one.

    Outputs replace what an earlier run wrote, and nothing else: other files and folders, and the source, are refused.
    """
    options = RunOptions(**locals())
    from rvos_edge.streaming.batch import find_files

    files = find_files(source)
    if files is None:
        from rvos_edge.cli.single import run_single

        run_single(options)
    else:
        from rvos_edge.cli.batch import run_batch

        run_batch(options, files)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder of demo.mp4 and demo.png.")] = Path("rvos-edge-demo"),
    bundle: BundleOption = None,
    frames: Annotated[int, typer.Option(help="Length of the clip.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic camera.")] = 2,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
) -> None:
    """Segment a synthetic clip whose exact masks are known; needs no data and no camera."""
    from rvos_edge.demo import run_demo
    from rvos_edge.opening import open_segmenter

    run_demo(open_segmenter(bundle, device=device, backend=backend), output, frames=frames, seed=seed)
