"""Segment many videos on the machines of a Ray cluster: what `rvos-edge run --workers` does on one.

    pip install "rvos-edge[ray]"
    python examples/ray_batch.py 'videos/*.mp4' --query "a dog" --masks masks --json lines --workers 4

Without a cluster it starts Ray on this machine, for this machine alone: everything listens on loopback. On a cluster,
start it on a node with RAY_ADDRESS=auto; the videos and the output folders must lie on storage that every node sees
under the same path, and rvos-edge must be installed on each. Each worker opens the bundle once and takes file after
file; files that an earlier run finished are skipped, by the same ledger as `rvos-edge run` keeps.

With a given number of threads the outputs are the same bytes as those of a single process.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rvos_edge.errors import UserError
from rvos_edge.streaming.batch import BatchJob, BatchRow, FileProcessor, find_files
from rvos_edge.streaming.ledger import plan


def segment(job: BatchJob, rows: list[BatchRow], *, workers: int, gpus: float = 0) -> Iterator[BatchRow]:
    """Map `FileProcessor` over rows with Ray Data; gives the rows back filled in, as they are done.

    Args:
        workers: Actors, each with a bundle of its own and `job.threads` CPUs.
        gpus: GPUs of each; a half lets two share one.
    """
    import ray.data

    if not rows:
        return
    # One block per file, or the first worker would get them all.
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        FileProcessor,
        fn_constructor_args=(job,),
        concurrency=workers,
        num_cpus=job.options["threads"],
        num_gpus=gpus or None,
    )
    yield from dataset.iter_rows()


def main(arguments: list[str] | None = None) -> int:
    """Run the example; returns its exit code."""
    parser = argparse.ArgumentParser(description="Segment many videos with Ray Data.")
    parser.add_argument("source", help="a glob or a folder of videos")
    parser.add_argument("--query", action="append", required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--output", type=Path, help="folder of overlay videos")
    parser.add_argument("--masks", type=Path, help="folder of folders of masks")
    parser.add_argument("--json", type=Path, help="folder of JSON lines")
    parser.add_argument("--backend", default="auto", help="name one where nodes differ, so that all use the same")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a worker")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a worker")
    options = parser.parse_args(arguments)

    # Workers may run elsewhere on the machine, where a relative path means nothing.
    folders = [None if path is None else path.resolve() for path in (options.output, options.masks, options.json)]
    job = BatchJob(
        queries=tuple(options.query),
        bundle=None if options.bundle is None else options.bundle.resolve(),
        output=folders[0],
        masks=folders[1],
        json=folders[2],
        options={"backend": options.backend, "threads": options.threads},
    )
    if importlib.util.find_spec("ray") is None:
        raise UserError("Ray is not installed; run: pip install 'rvos-edge[ray]'.")
    files = find_files(options.source)
    if not files:
        raise UserError(f"{options.source!r} names no videos; give a glob or a folder of them")
    rows, todo, ledger = plan(job, [path.resolve() for path in files])

    if "RAY_ADDRESS" not in os.environ:
        # Read when Ray is imported: the name is of systems that Ray does not cluster, and what it does is to keep every
        # server on loopback.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        import ray

        ray.init(num_cpus=options.workers * options.threads, include_dashboard=False)
    done = failed = 0
    for row in segment(job, todo, workers=options.workers, gpus=options.gpus):
        if row["error"]:
            failed += 1
            print(f"{row['source']}: {row['error']}", file=sys.stderr)
        else:
            done += 1
            ledger.add(row)
    print(f"{done} of {len(rows)} files done, {len(rows) - len(todo)} were finished before, {failed} failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
