"""The health of a stream, for container engines, load balancers and people."""

from __future__ import annotations

import shutil
from typing import Any

from rvos_edge import __version__
from rvos_edge.server.live import Live
from rvos_edge.server.recorder import SPARE


def health(live: Live) -> dict[str, Any]:
    """State of camera, model, recorder and disk; ``status`` is "ok", or "trouble" with the first trouble in words."""
    state, silence = live.state, live.telemetry.silence
    recorder, outputs = live.recorder.state, list(live.meter.failures)
    free = shutil.disk_usage(live.library.folder).free
    stuck = live.meter.busy_seconds > live.telemetry.patience
    troubles = {
        "camera": live.player.camera_trouble,
        "model": f"a frame takes longer than {live.telemetry.patience:.0f} s." if stuck else live.controls.error,
        "recorder": recorder.trouble or " ".join(outputs),
        "disk": f"only {free >> 20} MiB are free on the server's disk." if free < SPARE else "",
    }
    if not (troubles["camera"] or stuck or state in ("paused", "photo")) and silence > live.telemetry.patience:
        troubles["camera"] = f"no frame came for {silence:.0f} s."
    trouble = next(filter(None, troubles.values()), "")
    figures: dict[str, dict[str, Any]] = {
        "camera": {
            "source": live.player.name,
            "silent_seconds": round(silence, 1),
            "reconnects": live.player.reconnects,
        },
        "model": {"bundle": live.bundle, "backend": live.backend},
        "recorder": {"running": recorder.running, "seconds": round(recorder.seconds, 1)},
        "disk": {"free_bytes": free},
    }
    return {
        "status": "trouble" if trouble else "ok",
        "trouble": trouble,
        "version": __version__,
        "state": state,
        "frames": live.telemetry.frames,
        "fps": round(live.telemetry.fps, 2),
        **{part: {"trouble": troubles[part], **known} for part, known in figures.items()},
    }
