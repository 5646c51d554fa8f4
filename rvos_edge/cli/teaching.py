"""``rvos-edge teach``: a query from shown frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rvos_edge.atomic import write_output
from rvos_edge.cli.application import BackendOption, BundleOption, DeviceOption, app
from rvos_edge.outputs import check_inputs, check_outputs, mark_png

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@app.command()
def teach(
    source: Annotated[str, typer.Argument(help="A video or a folder of images in which the object is shown.")],
    output: Annotated[Path, typer.Option(help="The file to write, such as my-mug.query.")],
    like: Annotated[str, typer.Option(help="A sentence to start from, such as 'a mug'.")] = "",
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a PNG for each shown frame, named by its name or number (a black one says: not here), "
            "or a COCO file."
        ),
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option(help="FRAME:x,y,width,height around the object; may be repeated.")
    ] = None,
    point: Annotated[list[str] | None, typer.Option(help="FRAME:x,y on the object; may be repeated.")] = None,
    keep_masks: Annotated[
        Path | None,
        typer.Option(help="Write the masks that were used here, to be looked at, mended and given as --masks."),
    ] = None,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
) -> None:
    """Teach a query an object that is shown on a few frames; then: rvos-edge run SOURCE @FILE."""
    from rvos_edge.opening import open_segmenter
    from rvos_edge.segmenter import Segmenter
    from rvos_edge.showing import parse_boxes, parse_points, read_shown
    from rvos_edge.streaming.sources import open_source, source_files

    inputs = [*source_files(source), masks, bundle]
    check_outputs([output], inputs)
    check_inputs([] if keep_masks is None else [keep_masks], inputs)
    boxes, points = parse_boxes(box or ()), parse_points(point or ())
    segmenter = open_segmenter(bundle, device=device, backend=backend)
    assert isinstance(segmenter, Segmenter)
    with open_source(source) as opened:
        shown = read_shown(opened, masks, boxes, points)
    if keep_masks is not None:
        _write_masks(keep_masks, [(one.name, one.mask) for one in shown])
    query = segmenter.teach(
        [one.frame for one in shown],
        [one.mask for one in shown],
        like=like,
        name=output.stem,
        previous=[one.previous for one in shown],
    )
    query.save(output)
    frames = f"{query.shots} shown frame{'s' if query.shots > 1 else ''}"
    if query.j == query.sentence_j:
        typer.echo(f"'{query.sentence}' is kept as it is: what {frames} taught was no better where it was left out.")
    else:
        typer.echo(f"{frames}: J {query.j:.2f} on what was left out, {query.sentence_j:.2f} for '{query.sentence}'.")
    typer.echo(f"Wrote {output}; use it with: rvos-edge run SOURCE @{output}")


def _write_masks(folder: Path, masks: list[tuple[str, NDArray[np.bool_]]]) -> None:
    import cv2

    for name, mask in masks:
        write_output(folder / f"{name}.png", mark_png(cv2.imencode(".png", mask.view("uint8") * 255)[1].tobytes()))
