"""The command line: ``rvos-edge run | demo | train | export | eval | report | data | doctor``.

Commands are thin: they read options, call one function and print what it returns. What a command needs is imported
inside it, so that ``--help`` is fast and the runtime commands work without the extras.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from rvos_edge import __version__
from rvos_edge.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rvos_edge.segmenter import Segmenter
    from rvos_edge.stream.loop import OnResult, Summary
    from rvos_edge.stream.sinks import Sink
    from rvos_edge.stream.sources import Source

_ASSUMED_FPS = 25.0
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "transformers", "safetensors", "yaml"), "train"),
    **dict.fromkeys(("tensorboard", "PIL", "matplotlib"), "train"),
    **dict.fromkeys(("onnx", "onnxscript", "onnx_ir"), "export"),
}
"""Import name -> the extra of this package that installs it."""


class _Commands(TyperGroup):
    """Turns bad input and missing extras into one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            message = str(error)
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            command = ctx.invoked_subcommand
            message = (
                f"'{command}' needs {error.name}, which is not installed; "
                f'run: pip install "rvos-edge[{extra}]", or in a clone: pip install ".[{extra}]"'
            )
        line = Text(f"Error: {' '.join(message.split())}", style="red")
        Console(stderr=True).print(line, soft_wrap=True)
        raise typer.Exit(2)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Segment what a sentence names, in videos and on cameras.",
)

BundleOption = Annotated[
    Path | None, typer.Option(help="Bundle directory; the edge model that comes with the package if left out.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def main() -> None:
    """The console script."""
    app(prog_name="rvos-edge")


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
def run(
    source: Annotated[str, typer.Option(help="Video, image folder, glob, camera number, URL, or synthetic[:SEED].")],
    query: Annotated[list[str], typer.Option(help="What to segment; repeat it for several objects.")],
    bundle: BundleOption = None,
    output: Annotated[Path | None, typer.Option(help="Write the overlay video here (.mp4).")] = None,
    masks: Annotated[Path | None, typer.Option(help="Write one indexed PNG per frame into this folder.")] = None,
    json: Annotated[str | None, typer.Option(help="Write one JSON line per frame here; - is stdout.")] = None,
    frames: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
    device: DeviceOption = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; one per physical core if left out.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Flow updates per frame; the bundle's if left out.")] = None,
    flow: Annotated[bool, typer.Option("--flow/--no-flow", help="Use motion.")] = True,
    opacity: Annotated[float, typer.Option(help="Of the masks in the video, 0 to 1.")] = 0.5,
) -> None:
    """Segment what the queries name, frame after frame."""
    from rvos_edge.stream.loop import run_stream
    from rvos_edge.stream.sinks import JsonSink, MaskSink, VideoSink, open_sinks
    from rvos_edge.stream.sources import open_source

    if not 0 <= opacity <= 1:
        raise UserError(f"--opacity {opacity:g} is out of range; choose between 0 and 1.")
    segmenter = _open(bundle, device=device, threads=threads, iterations=iterations, flow=flow)
    segmenter.set_queries(query)
    with open_source(source) as opened:
        makers: list[Callable[[], Sink]] = []
        if output is not None:
            _check_not_source(output, source)
            makers.append(lambda: VideoSink(output, opened.fps or _ASSUMED_FPS))
        if masks is not None:
            makers.append(lambda: MaskSink(masks))
        if json is not None:
            makers.append(lambda: JsonSink(json))
        sinks = open_sinks(makers)
        # A bar and JSON lines on one terminal would write over each other.
        with _Progress(opened, frames, hidden=json == "-") as on_result:
            summary = run_stream(segmenter, opened, sinks, frames=frames, on_result=on_result, opacity=opacity)
        written = [str(path) for path in (output, masks, json) if path not in (None, "-")]
        _print_summary(summary, segmenter, opened, written, Console(stderr=json == "-"))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder of demo.mp4 and demo.png.")] = Path("rvos-edge-demo"),
    bundle: BundleOption = None,
    frames: Annotated[int, typer.Option(help="Length of the clip.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the synthetic camera.")] = 7,
    device: DeviceOption = "auto",
) -> None:
    """Segment a synthetic clip whose exact masks are known; needs no data and no camera."""
    from rvos_edge.demo import run_demo

    run_demo(_open(bundle, device=device), output, frames=frames, seed=seed)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file, or the name of a configuration that comes with the package.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, such as optimizer.lr=0.01; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME if left out.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
) -> None:
    """Train a network and leave a checkpoint, or with `task: mlm` its text model; under torchrun on several GPUs."""
    from rvos_edge.trainer.config import MlmConfig, load_config

    if output is not None and resume is not None:
        raise UserError("--output and --resume name the same folder; give --resume alone to continue a run.")
    if config is None:
        if resume is None:
            raise UserError("there is no configuration; give a YAML file, or the name 'edge', or --resume DIR.")
        config = resume / "config.json"
    settings = load_config(config, changes or ())
    folder = resume or output or Path("runs") / settings.name
    if isinstance(settings, MlmConfig):
        from rvos_edge.trainer.mlm import train_text

        if resume is not None:
            raise UserError(f"a text model is not resumed, it takes minutes; remove {resume} and start again.")
        text = train_text(settings, folder)
        typer.echo(f"Wrote {text}; train with it by: rvos-edge train CONFIG --set weights.text={text}")
        return
    from rvos_edge.trainer.loop import train as train_network

    try:
        checkpoint = train_network(settings, folder, resume=resume is not None)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if os.environ.get("RANK", "0") == "0":
        advice = f"make a bundle of it with: rvos-edge export {checkpoint} --output {folder}/bundle"
        typer.echo(f"Wrote {checkpoint}; {advice}")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory that training wrote.")],
    output: Annotated[Path, typer.Option(help="The bundle to write, a directory.")],
    size: Annotated[str | None, typer.Option(help="Input as HxW, such as 288x512; the preset's if left out.")] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            help="Video or image folder on which the graphs are compared with PyTorch; synthetic if left out."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Store all weights as float32, float16 or int8; a mix if left out.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Refuse a checkpoint of another preset.")] = None,
) -> None:
    """Turn a checkpoint into a bundle of ONNX graphs that the runtime opens."""
    extent = _parse_size(size)
    from rvos_edge.export.package import export_bundle
    from rvos_edge.export.precision import parse_storage

    storage = parse_storage(weights) if weights is not None else None
    bundle = export_bundle(checkpoint, output, size=extent, frames=frames, weights=storage, preset=preset)
    typer.echo(f"Wrote {bundle}; try it with: rvos-edge demo --bundle {bundle}")


@app.command("eval")
def evaluate(
    dataset: Annotated[
        str,
        typer.Option(
            help="davis16, davis17, youtube-vos, a2d, jhmdb, refcoco, synthetic, swap, or all: "
            "davis16, synthetic and swap."
        ),
    ],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint directory to score, or")] = None,
    bundle: Annotated[Path | None, typer.Option(help="bundle directory to score.")] = None,
    root: Annotated[Path | None, typer.Option(help="The data set's folder; DAVIS-16's for swap and all.")] = None,
    coco: Annotated[Path | None, typer.Option(help="The COCO folder, for the swap test.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="A split, or names of videos with commas; the one usually judged if left out."),
    ] = None,
    expressions: Annotated[
        Path | None, typer.Option(help="The sentences, such as a meta_expressions.json; the data set's if left out.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the figures here; with it, an interrupted evaluation can go on.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Write the masks to Annotations/VIDEO/KEY/FRAME.png in this folder.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="unsupervised: every frame counts; semi-supervised: the first and last do not.")
    ] = "unsupervised",
    every: Annotated[int, typer.Option(help="Score every n-th frame; all are seen.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with an interrupted evaluation, or start anew.")
    ] = True,
    card: Annotated[bool, typer.Option("--card", help="Write the bundle's model card.")] = False,
) -> None:
    """Score a checkpoint or a bundle: J and F, IoU, and whether it follows the words."""
    from rvos_edge.trainer.evaluate import Options
    from rvos_edge.trainer.evaluate import evaluate as score

    score(
        Options(
            checkpoint=checkpoint,
            bundle=bundle,
            dataset=dataset,
            root=root,
            coco=coco,
            split=split,
            expressions=expressions,
            every=every,
            protocol=protocol,
            masks=masks,
            json=json,
            resume=resume,
            card=card,
        )
    )


data_app = typer.Typer(no_args_is_help=True, help="Look after data sets.")
app.add_typer(data_app, name="data")


@data_app.command("check")
def check_data(
    dataset: Annotated[str, typer.Option(help="davis16, davis17, youtube-vos, a2d, jhmdb, coco or refcoco.")],
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    expressions: Annotated[
        Path | None, typer.Option(help="File of the expressions; where the data set keeps it if left out.")
    ] = None,
) -> None:
    """Say what of a data set is there, what is missing and where to get it."""
    from rvos_edge.trainer.data.check import as_table, check_dataset, is_complete

    findings = check_dataset(dataset.replace("-", "_"), root, expressions=expressions)
    Console().print(as_table(dataset, root, findings))
    if not is_complete(findings):
        raise typer.Exit(2)


@app.command()
def report(
    run: Annotated[list[str], typer.Option(help="NAME=CHECKPOINT; repeat it to compare several.")],
    root: Annotated[Path, typer.Option(help="The data set's folder.")],
    dataset: Annotated[str, typer.Option(help="A data set of videos, named as in eval.")] = "davis16",
    split: Annotated[
        str | None,
        typer.Option(
            "--split", "--videos", help="A split, or names of videos with commas; DAVIS-16's dev if left out."
        ),
    ] = None,
    expressions: Annotated[
        Path | None, typer.Option(help="The sentences, such as a meta_expressions.json; the data set's if left out.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the page and its pictures.")] = Path("report"),
    every: Annotated[int, typer.Option(help="Score every n-th frame; all are seen.")] = 1,
    bundle: Annotated[Path | None, typer.Option(help="Bundle to show beside the checkpoints.")] = None,
) -> None:
    """Draw the paper's figures from runs of your own: ablation, effect of flow, queries and masks."""
    from rvos_edge.trainer.report import Options
    from rvos_edge.trainer.report import report as make_report

    options = Options(
        runs=run,
        root=root,
        dataset=dataset,
        split=split,
        expressions=expressions,
        output=output,
        every=every,
        bundle=bundle,
    )
    typer.echo(f"Wrote {make_report(options)}; open it in a browser.")


@app.command()
def doctor() -> None:
    """Say what this machine has, what is missing and how to get it."""
    from rvos_edge.doctor import print_report

    print_report()


def _open(
    bundle: Path | None,
    *,
    device: str,
    threads: int | None = None,
    iterations: int | None = None,
    flow: bool = True,
) -> Segmenter:
    from rvos_edge.flow_policy import FlowOptions
    from rvos_edge.segmenter import open_segmenter

    if iterations is not None and iterations < 1:
        raise UserError(f"--iterations {iterations} is out of range; give at least 1, or --no-flow.")
    options = FlowOptions(enabled=flow, iterations=iterations)
    return open_segmenter(bundle, device=device, flow=options, threads=threads)


def _parse_size(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    match = _SIZE.fullmatch(size)
    extent = (int(match[1]), int(match[2])) if match else (0, 0)
    if any(side < 32 or side % 32 for side in extent):
        raise UserError(f"--size {size}: write it as HxW, for example 288x512; both multiples of 32.")
    return extent


def _check_not_source(output: Path, source: str) -> None:
    if output.exists() and Path(source).exists() and output.samefile(source):
        raise UserError(f"--output {output} is the source itself; choose another file.")


class _Progress:
    """A bar on stderr, if that is a terminal, moved by the `on_result` that entering gives."""

    def __init__(self, source: Source, frames: int | None, *, hidden: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=hidden or not console.is_terminal)
        known = [count for count in (source.length, frames) if count is not None]
        self._task = self._bar.add_task(source.name, total=min(known, default=None))

    def __enter__(self) -> OnResult:
        self._bar.start()
        return lambda frame, result, overlay: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _print_summary(
    summary: Summary, segmenter: Segmenter, source: Source, written: list[str], console: Console
) -> None:
    from rich.markup import escape

    from rvos_edge.demo import stage_table

    console.print(stage_table(summary))
    dropped = f", {summary.dropped} dropped" if source.live else ""
    stopped = " (stopped by Ctrl-C)" if summary.interrupted else ""
    console.print(
        f"{escape(source.name)}: {summary.frames} frames{dropped} at {summary.fps:.1f} frames per second{stopped}, "
        f"{segmenter.backend_name} because {segmenter.backend_reason}.",
        soft_wrap=True,
    )
    if written:
        console.print(escape(f"Wrote {', '.join(written)}."), soft_wrap=True)


if __name__ == "__main__":
    main()
