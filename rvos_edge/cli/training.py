"""Commands that train and judge: ``train``, ``eval``, ``data check`` and ``report``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rvos_edge.atomic import unless_refused
from rvos_edge.catalogue import find_bundle
from rvos_edge.cli.application import DeviceOption, app
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_outputs

SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split", "--videos", help="A split, or names of videos with commas; the one usually judged if left out."
    ),
]
ExpressionsOption = Annotated[
    Path | None, typer.Option(help="The sentences, such as a meta_expressions.json; the data set's if left out.")
]
EveryOption = Annotated[int, typer.Option(help="Score every n-th frame; all are seen.")]


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file, or the name of a configuration that comes with the package.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the configuration with all its keys, and stop.")] = False,
    list_configs: Annotated[
        bool, typer.Option("--list", help="List the configurations that come with the package, and stop.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="KEY=VALUE, such as optimizer.lr=0.01; repeatable. The key + adds to a list: "
            "data.sources.+={kind: coco, root: DIR, share: 0.2}.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="What DATA_ROOT stands for in the configuration; for specialist, of label.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME if left out.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this folder; with --set iterations=N also a finished one.")
    ] = None,
) -> None:
    """Train a network and leave a checkpoint; under torchrun on several GPUs.

    With `task: mlm` its text model, and with `task: presence` the presence head of a finished network.
    """
    from rvos_edge.trainer import train as start
    from rvos_edge.trainer.config import DATA_ROOT, load_config
    from rvos_edge.trainer.recipes import as_yaml, shipped_configs

    if list_configs:
        for name, purpose in shipped_configs().items():
            typer.echo(f"{name}\n    {purpose}")
        return
    if output is not None and resume is not None:
        raise UserError("--output and --resume name the same folder; give --resume alone to continue a run.")
    if config is None:
        if resume is None:
            raise UserError(
                "there is no configuration; give a YAML file, or a name that rvos-edge train --list shows, or "
                "--resume DIR."
            )
        config = resume / "config.json"
        if not config.is_file():
            raise UserError(f"--resume {resume}: there is no run to continue, it has no config.json; give its folder.")
    # To read a configuration no data is needed.
    kept = [f"{DATA_ROOT}=${DATA_ROOT}"] if show and DATA_ROOT not in os.environ else []
    given = [] if data is None else [f"{DATA_ROOT}={data}"]
    settings = load_config(config, [*kept, *given, *(changes or ())])
    if show:
        typer.echo(as_yaml(settings), nl=False)
        return
    folder = resume or output or Path("runs") / settings.name
    if resume is None:
        check_outputs([folder / "config.json"], [config])
        if data is not None and (data / "labels.json").is_file():
            from rvos_edge.trainer.tasks.label import lay_out

            lay_out(data, console=Console(stderr=True))  # corrections included
    try:
        with unless_refused(folder, "start", "config.json"):
            settings = settings if resume is not None else _restored(settings, folder)
            result = start(settings, folder, resume=resume is not None)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if os.environ.get("RANK", "0") == "0":
        advice = f"make a bundle of it with: rvos-edge export {result} --output {folder}/bundle"
        if result.name == "text":
            advice = f"train with it by: rvos-edge train CONFIG --set weights.text={result}"
        typer.echo(f"Wrote {result}; {advice}")


def _restored(settings: Any, folder: Path) -> Any:
    """The configuration with a checkpoint in place of a bundle in ``init_from``."""
    start = getattr(settings, "init_from", None)
    bundle = None if start is None else find_bundle(start)
    if bundle is None or not (bundle / "manifest.json").is_file():
        return settings
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            f"init_from {start} is a bundle, which one process makes a checkpoint of: first rvos-edge restore {start} "
            f"--output DIR, then --set init_from=DIR."
        )
    from rvos_edge.export.restore import restore_checkpoint

    checkpoint = folder / "start"
    if not checkpoint.is_dir():
        restore_checkpoint(bundle, checkpoint)
    return settings.model_copy(update={"init_from": str(checkpoint)})


@app.command()
def label(
    source: Annotated[list[str], typer.Argument(help="Videos, or folders of pictures.")],
    query: Annotated[list[str], typer.Option(help="A sentence, or with the teacher edge @FILE; may be repeated.")],
    output: Annotated[Path, typer.Option(help="Folder of the labels; one that is not finished goes on.")],
    teacher: Annotated[
        str,
        typer.Option(
            help="edge or another bundle; sam3, sam3-litetext, grounding-dino, omdet-turbo; or a folder or Hub name of "
            "such weights, of a detector and SAM 2 as DETECTOR+TRACKER. Nothing is downloaded."
        ),
    ] = "edge",
    confidence: Annotated[float, typer.Option(min=0, max=1, help="Frames that are less sure are left out.")] = 0.6,
    every: Annotated[int, typer.Option(min=1, help="Label every n-th frame.")] = 1,
    device: DeviceOption = "auto",
) -> None:
    """Draw the masks of queries in videos by a large network, as training data for a specialist."""
    from rvos_edge.queries import read_queries
    from rvos_edge.trainer.tasks.label import LabelFacts, sentences_of
    from rvos_edge.trainer.tasks.label import label as write_labels
    from rvos_edge.trainer.teachers import open_teacher

    queries = read_queries(query)
    facts = LabelFacts(queries=sentences_of(queries), teacher=teacher, every=every, confidence=confidence)
    write_labels(source, open_teacher(teacher, queries, device=device), facts, output, console=Console(stderr=True))
    typer.echo(f"Wrote {output}; train with: rvos-edge train specialist --data {output}")


@app.command()
def average(
    checkpoint: Annotated[list[Path], typer.Argument(help="Checkpoints of runs that began with the same one.")],
    output: Annotated[Path, typer.Option(help="The checkpoint to write.")],
) -> None:
    """Average the weights of several runs, which is often better than any of them."""
    from rvos_edge.trainer.tasks.average import average_checkpoints

    typer.echo(f"Wrote {average_checkpoints(checkpoint, output)}")


@app.command()
def restore(
    bundle: Annotated[Path, typer.Argument(help="The bundle to go on from.")],
    output: Annotated[Path, typer.Option(help="The checkpoint to write.")],
    config: Annotated[
        Path | None,
        typer.Option(help="Training configuration whose data the batch norms are fitted to; synthetic if left out."),
    ] = None,
) -> None:
    """Make a checkpoint of a bundle again: to train from it, to average it or to export it anew."""
    from rvos_edge.export.restore import restore_checkpoint
    from rvos_edge.trainer.config import TrainConfig, load_config

    settings = load_config(config) if config is not None else None
    if settings is not None and not isinstance(settings, TrainConfig):
        raise UserError(f"--config {config} trains no network as a whole; give the configuration of one that does.")
    checkpoint = restore_checkpoint(find_bundle(bundle), output, settings)
    typer.echo(f"Wrote {checkpoint}; train from it with: rvos-edge train CONFIG --set init_from={checkpoint}")


@app.command("eval")
def evaluate(
    dataset: Annotated[
        str,
        typer.Option(
            help="davis16, davis17, youtube-vos, mevis, a2d, jhmdb, refcoco, synthetic, swap, words, or all: "
            "davis16, synthetic and swap."
        ),
    ],
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint directory to score, or")] = None,
    bundle: Annotated[Path | None, typer.Option(help="bundle directory to score.")] = None,
    backend: Annotated[str, typer.Option(help="Runs the bundle; auto for the fastest.")] = "onnxruntime",
    root: Annotated[Path | None, typer.Option(help="The data set's folder; DAVIS-16's for swap and all.")] = None,
    coco: Annotated[Path | None, typer.Option(help="The COCO folder, for the swap test.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Network input as HxW; original: each frame at its own size, as the paper does, with a checkpoint."
        ),
    ] = None,
    people: Annotated[
        Path | None, typer.Option(help="A folder of people with garments per pixel, for the swap test among several.")
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(help="A folder with instances as COCO's, to ask its held-out pictures by single words."),
    ] = None,
    split: SplitOption = None,
    expressions: ExpressionsOption = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the figures here; with it, an interrupted evaluation can go on.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Write the masks to Annotations/VIDEO/KEY/FRAME.png in this folder.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="every-frame: each expression against its object; semi-supervised: without the first and last frame; "
            "unsupervised: DAVIS-2017's, objects matched to answers."
        ),
    ] = "every-frame",
    pairs: Annotated[
        Path | None, typer.Option(help="Score the pairs of this list, as MTTR writes it for a2d and jhmdb, alone.")
    ] = None,
    every: EveryOption = 1,
    teach: Annotated[
        int,
        typer.Option(
            help="Show so many frames of each object, evenly spread, and score the others; of words, so many pictures."
        ),
    ] = 0,
    adapt: Annotated[
        str, typer.Option(help="once, on: queries settle on their own masks, as in run; off: the sentences alone.")
    ] = "off",
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with an interrupted evaluation, or start anew.")
    ] = True,
    card: Annotated[bool, typer.Option("--card", help="Write the bundle's model card.")] = False,
) -> None:
    """Score a checkpoint or a bundle: J and F, IoU, and whether it follows the words."""
    given = {**locals(), "bundle": None if bundle is None else find_bundle(bundle)}
    from rvos_edge.trainer.evaluate import EvalOptions
    from rvos_edge.trainer.evaluate import evaluate as score

    score(EvalOptions(**given))


data_app = typer.Typer(no_args_is_help=True, help="Look after data sets.")
app.add_typer(data_app, name="data")


@data_app.command("check")
def check_data(
    dataset: Annotated[str, typer.Option(help="davis16, davis17, youtube-vos, mevis, a2d, jhmdb, coco or refcoco.")],
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    expressions: Annotated[
        Path | None, typer.Option(help="File of the expressions; where the data set keeps it if left out.")
    ] = None,
) -> None:
    """Say what of a data set is there, what is missing and where to get it."""
    from rvos_edge.trainer.data.check import as_lines, check_dataset, is_complete

    findings = check_dataset(dataset.replace("-", "_"), root, expressions=expressions)
    for line, style in as_lines(findings):
        Console().print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    if not is_complete(findings):
        raise typer.Exit(2)


@data_app.command("convert")
def convert_data(
    source: Annotated[Path, typer.Argument(help="COCO or Label Studio (.json), or CVAT for images or video (.xml).")],
    output: Annotated[Path, typer.Argument(help="File to write: .json or .xml.")],
    to: Annotated[
        str | None, typer.Option(help="coco, cvat or label-studio; cvat for .xml and coco for .json if left out.")
    ] = None,
) -> None:
    """Convert annotations between COCO, CVAT and Label Studio; masks are kept exactly."""
    from rvos_edge.trainer.data.convert import Form, convert

    if to not in (None, *Form):
        raise UserError(f"--to {to} is unknown; give {', '.join(Form)}.")
    typer.echo(convert(source, output, None if to is None else Form(to)))


@app.command()
def report(
    runs: Annotated[list[str], typer.Option("--run", help="NAME=CHECKPOINT; repeat it to compare several.")],
    root: Annotated[Path, typer.Option(help="The data set's folder.")],
    dataset: Annotated[str, typer.Option(help="A data set of videos, named as in eval.")] = "davis16",
    split: SplitOption = None,
    expressions: ExpressionsOption = None,
    output: Annotated[Path, typer.Option(help="Folder of the page and its pictures.")] = Path("report"),
    every: EveryOption = 1,
    bundle: Annotated[Path | None, typer.Option(help="Bundle to show beside the checkpoints.")] = None,
    frames: Annotated[
        str, typer.Option(help="Frames that figures show of each video; or VIDEO:FRAME[:QUERY] with commas.")
    ] = "5",
    cache: Annotated[
        Path, typer.Option(help="Folder of the recorded masks: another report of them runs no network.")
    ] = Path("runs/recordings"),
    baselines: Annotated[
        Path | None, typer.Option(help="Published results to show below; the form is that of published.yaml.")
    ] = None,
) -> None:
    """Draw the paper's figures and tables from runs of your own: ablation, effect of flow, queries and masks."""
    given = {**locals(), "bundle": None if bundle is None else find_bundle(bundle)}
    from rvos_edge.trainer.report import ReportOptions
    from rvos_edge.trainer.report import report as make_report

    typer.echo(f"Wrote {make_report(ReportOptions(**given))}; open it in a browser.")
