"""Lists of the pairs of expression and frame that published work scores on A2D-Sentences and J-HMDB-Sentences."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from rvos_edge.errors import UserError

Pair = tuple[int, int | None]
"""Index of a frame, and the id of the object that is asked for; None where there is one object alone."""


def read_pairs(path: Path) -> dict[str, frozenset[Pair]]:
    """Read the list that MTTR writes and ReferFormer uses: pairs by video.

    For A2D-Sentences a2d_sentences_single_frame_test_annotations.json, a list of [expression, video, frame, instance];
    for J-HMDB-Sentences jhmdb_sentences_samples_metadata.json, a list of [video, path of the frame, ...] with three
    frames of each video, drawn once at random. Frames are numbered from 1. Without a list every annotated frame counts
    that shows the object: on A2D the same pairs but for instances whose listed mask is empty, on J-HMDB ten times as
    many.

    Raises:
        UserError: The file is missing or of another form.
    """
    pairs: dict[str, set[Pair]] = defaultdict(set)
    try:
        for entry in json.loads(path.read_text(encoding="utf-8-sig")):
            if isinstance(entry[2], int):
                pairs[str(entry[1])].add((entry[2] - 1, int(entry[3])))
            else:
                pairs[str(entry[0])].add((int(Path(entry[1]).stem) - 1, None))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"--pairs {path} is not a list of pairs as MTTR writes it; give that file") from error
    return {video: frozenset(found) for video, found in pairs.items()}
