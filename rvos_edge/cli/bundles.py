"""Commands that make, prove and show bundles: ``export``, ``build``, ``verify``, ``inspect`` and ``bundles``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rvos_edge.atomic import write_output
from rvos_edge.catalogue import find_bundle
from rvos_edge.cli.application import DeviceOption, app, bundle_names
from rvos_edge.errors import UserError
from rvos_edge.manifest import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rvos_edge.engines.tensorrt.build import BuildOptions

    Segment = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]

BundleArgument = Annotated[
    Path | None,
    typer.Argument(help="Name or folder of a bundle; edge if left out.", autocompletion=bundle_names),
]
CapabilityOption = Annotated[
    list[str] | None,
    typer.Option(help="Build for these GPUs rather than the one here, such as 86; repeatable; tensorrt-rtx only."),
]
WorkspaceOption = Annotated[int | None, typer.Option(help="Most scratch memory of a layer in MiB.", min=1)]
IsolateOption = Annotated[
    bool, typer.Option("--isolate", help="Build each engine in a process of its own: for little memory.")
]


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="The bundle to write, a directory.")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint directory that training wrote; or give --preset alone.")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Compute in float16 where it is safe: for NVIDIA GPUs.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Let OpenVINO compute in bfloat16 where it is safe.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Compute in float32, which is the default.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute convolutions in eight bits where the masks allow it.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="With --int8: a video or image folder like what will be seen, or a data set laid out as DAVIS-2016."
        ),
    ] = None,
    query: Annotated[
        list[str] | None, typer.Option(help="A query about the frames of --calibrate; repeatable.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="Input as HxW, such as 288x512; repeatable, the first is the default; the preset's if left out."
        ),
    ] = None,
    flow_scale: Annotated[
        int | None,
        typer.Option(help="Compute the flow on the image reduced by 1, 2 or 4; as it was trained if left out."),
    ] = None,
    boundary: Annotated[
        str | None,
        typer.Option(
            help="`guided` draws masks along the image's edges, `none` does not; as the checkpoint if left out."
        ),
    ] = None,
    max_queries: Annotated[int, typer.Option(help="Most queries at once that engines are made for.")] = 64,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Video or image folder on which the graphs are compared with PyTorch; synthetic if left out."
        ),
    ] = None,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Make one graph of backbone and ASPP: a little faster in OpenVINO.")
    ] = False,
    teach: Annotated[
        bool, typer.Option("--teach/--no-teach", help="Add the graph with which queries learn on the device.")
    ] = True,
    weights: Annotated[
        str | None, typer.Option(help="Store all weights as float32, float16 or int8; a mix if left out.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Refuse a checkpoint of another preset; alone, build this preset from weights.")
    ] = None,
    backbone: Annotated[Path | None, typer.Option(help="Without a checkpoint: official ImageNet weights.")] = None,
    text: Annotated[Path | None, typer.Option(help="Without a checkpoint: folder of a BERT or MiniLM.")] = None,
    raft: Annotated[Path | None, typer.Option(help="Without a checkpoint: official RAFT weights.")] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="onnx, openvino, tensorrt or tensorrt-rtx; repeatable; onnx is always written."),
    ] = None,
    compute_capability: CapabilityOption = None,
    workspace: WorkspaceOption = None,
    isolate: IsolateOption = False,
) -> None:
    """Turn a checkpoint into a bundle of ONNX graphs that the runtime opens, and into engines."""
    sizes = [parse_size(text) for text in size or ()]
    if fp16 + bf16 + fp32 > 1:
        raise UserError("--fp16, --bf16 and --fp32 exclude each other; give one of them.")
    if int8 != (calibrate is not None) or (query and not int8):
        raise UserError("--int8 and --calibrate need each other, and --query both; give a video or an image folder.")
    if boundary not in (None, "none", "guided"):
        raise UserError(f"--boundary {boundary}: masks are drawn either way, guided or none; give one of the two.")
    from rvos_edge.export.package import ExportOptions, export_bundle, export_preset
    from rvos_edge.export.weights import parse_storage

    options = ExportOptions(
        sizes=sizes,
        precision="float16" if fp16 else "bfloat16" if bf16 else "float32",
        weights=parse_storage(weights) if weights is not None else None,
        calibrate=calibrate,
        queries=query or (),
        max_queries=max_queries,
        source=source,
        preset=preset,
        fuse=fuse,
        flow_scale=flow_scale,
        teach=teach,
        boundary=boundary,  # type: ignore[arg-type]  # looked at above
    )
    targets = dict.fromkeys(target or ())
    builds = _builds(targets, compute_capability, workspace, isolate)
    if checkpoint is not None:
        if backbone or text or raft:
            raise UserError("--backbone, --text and --raft are for an export without a checkpoint; leave them out.")
        bundle = export_bundle(checkpoint, output, options)
    elif preset is None:
        raise UserError("there is nothing to export; give a checkpoint directory, or --preset.")
    else:
        given = {"backbone": backbone, "text": text, "raft": raft}
        bundle = export_preset(preset, {name: path for name, path in given.items() if path}, output, options)
    for build_options in builds:
        _build_engines(bundle, build_options)
    if "openvino" in targets:
        verify(bundle, backend=["openvino"])
    typer.echo(f"Wrote {bundle}; try it with: rvos-edge demo --bundle {bundle}")


@app.command()
def build(
    bundle: Annotated[Path, typer.Argument(help="Name or folder of a bundle.", autocompletion=bundle_names)],
    target: Annotated[list[str], typer.Option(help="tensorrt or tensorrt-rtx; repeatable.")],
    compute_capability: CapabilityOption = None,
    workspace: WorkspaceOption = None,
    isolate: IsolateOption = False,
    device: DeviceOption = "cuda",
    missing: Annotated[
        bool, typer.Option("--build/--no-build", help="Build what is missing, or refuse and say why it does not fit.")
    ] = True,
) -> None:
    """Build a bundle's TensorRT engines on this machine; those that fit already are kept."""
    for options in _builds(dict.fromkeys(target), compute_capability, workspace, isolate, device):
        _build_engines(find_bundle(bundle), options, missing=missing)


@app.command()
def verify(
    bundle: BundleArgument = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="onnxruntime, openvino, tensorrt or tensorrt-rtx; repeatable; all of --device if left out."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Video or image folder on which to compare the masks; the bundle's if left out.")
    ] = None,
    query: Annotated[
        list[str] | None, typer.Option(help="What to segment in --source; repeatable; the bundle's if left out.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Compare with this checkpoint in PyTorch; with ONNX Runtime if left out.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Stop after so many frames of --source.")] = 100,
    device: DeviceOption = "cpu",
    write: Annotated[bool, typer.Option("--write/--no-write", help="Keep the proofs in the manifest.")] = True,
) -> None:
    """Prove on this machine that each graph, and the masks of the chain, are those of PyTorch."""
    from rvos_edge.bundle import Bundle
    from rvos_edge.engines.registry import available_backends, open_backend
    from rvos_edge.inspection import proof_table
    from rvos_edge.parity.record import load_reference
    from rvos_edge.parity.verify import check, film, keep_proofs, prove

    opened = Bundle.open(find_bundle(bundle))
    reference = load_reference(opened)
    footage = None
    if source is not None:
        segment, made_by = _baseline(opened.path, checkpoint, query or reference.queries)
        footage = film(source, query or reference.queries, segment, made_by=made_by, limit=frames)
    elif checkpoint is not None or query:
        raise UserError("--checkpoint and --query belong to --source; give a video or an image folder there.")
    console = Console()
    for name in backend or available_backends(opened, device):
        # ONNX Runtime cannot be its own judge.
        other = footage if name != "onnxruntime" or checkpoint is not None else None
        make = partial(open_backend, name, device=device, bundle=opened)
        proof = prove(opened, reference, make, footage=other)
        console.print(proof_table(opened.manifest, name, proof))
        check(opened, proof)
        if write:
            keep_proofs(opened, {name: proof})


@app.command()
def inspect(
    bundle: BundleArgument = None,
    size: Annotated[str | None, typer.Option(help="One of its input sizes, such as 480x864.")] = None,
    json: Annotated[str | None, typer.Option(help="Write JSON here instead; - is stdout.")] = None,
) -> None:
    """Show a bundle's graphs: shapes, arithmetic, cost, and how they were proven."""
    from rvos_edge.bundle import Bundle
    from rvos_edge.inspection import as_json, print_bundle

    opened = Bundle.open(find_bundle(bundle), size=parse_size(size) if size is not None else None)
    if json is None:
        print_bundle(opened, Console())
    elif json == "-":
        typer.echo(as_json(opened))
    else:
        write_output(Path(json), as_json(opened) + "\n")


@app.command("bundles")
def show_bundles() -> None:
    """List the bundles that have names: the shipped one, the user's, and those in $RVOS_EDGE_BUNDLES."""
    from rvos_edge.catalogue import describe_bundles, list_bundles

    for text in describe_bundles(list_bundles()):
        typer.echo(text)


def _builds(
    targets: Iterable[str], capabilities: list[str] | None, workspace: int | None, isolated: bool, device: str = "cuda"
) -> list[BuildOptions]:
    """The engines to build for the targets; impossible ones are refused here, before a long export."""
    from rvos_edge.engines.device_names import gpu_index
    from rvos_edge.engines.registry import open_backend
    from rvos_edge.engines.tensorrt import api
    from rvos_edge.engines.tensorrt.build import BuildOptions, check_options

    builds = []
    for name in targets:
        if name in ("onnx", "openvino"):
            open_backend("onnxruntime" if name == "onnx" else name)
            continue
        flavour = api.parse_flavour(name)
        builds.append(BuildOptions(flavour, tuple(capabilities or ()), workspace, isolated, gpu_index(device)))
        check_options(builds[-1])
    if capabilities and not builds:
        raise UserError("--compute-capability belongs to --target tensorrt-rtx; give that too.")
    return builds


def _build_engines(bundle: Path, options: BuildOptions, *, missing: bool = True) -> None:
    from rvos_edge.bundle import Bundle
    from rvos_edge.engines.tensorrt.build import ensure_engines
    from rvos_edge.manifest import format_size, read_manifest

    manifest = read_manifest(bundle)
    for size in (manifest.size, *map(parse_size, manifest.sizes)):
        engines = ensure_engines(Bundle.open(bundle, size=size), options, build=missing)
        megabytes = sum(path.stat().st_size for path in engines.values()) / 1e6
        for_gpu = f" for {'+'.join(options.capabilities)}" if options.capabilities else ""
        what = f"{len(engines)} {options.flavour} engines of {format_size(size)}{for_gpu}"
        typer.echo(f"{bundle}: {what}, {megabytes:.1f} MB")


def _baseline(bundle: Path, checkpoint: Path | None, queries: Sequence[str]) -> tuple[Segment, str]:
    """A function from a frame to the reference masks, those of absent queries too, and the name of their maker."""
    if checkpoint is None:
        from rvos_edge.opening import open_segmenter

        segmenter = open_segmenter(bundle, device="cpu", backend="onnxruntime", min_presence=0)
        segmenter.set_queries(queries)
        return lambda frame: segmenter.step(frame).masks, "ONNX Runtime"
    from rvos_edge.bundle import Bundle
    from rvos_edge.trainer.checkpoint import load_checkpoint
    from rvos_edge.trainer.predictor import TorchSegmenter

    network = TorchSegmenter(load_checkpoint(checkpoint), size=Bundle.open(bundle).manifest.size, min_presence=0)
    network.set_queries(queries)
    return network.masks, "PyTorch"
