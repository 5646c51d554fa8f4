"""The ASGI application of several streams: a page with all of them, and each below its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp

from rvos_edge.server.health import health
from rvos_edge.server.live import Live
from rvos_edge.server.streams import PAGE, new_application, stream_application

_DESCRIPTION = "Several streams that are being segmented. Each has its own page and API below its name: /NAME/api/..."


def cameras_application(lives: Mapping[str, Live], *, token: str | None, base_path: str = "") -> ASGIApp:
    """Page, health and metrics of all streams by name, without a guard."""
    app = new_application(_DESCRIPTION, base_path=base_path)
    registry = CollectorRegistry()
    registry.register(_Joined(lives))

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(PAGE / "cameras.html")

    @app.get("/api/cameras")
    async def get_cameras() -> dict[str, Any]:
        """All cameras in one line each."""
        told = await run_in_threadpool(lambda: {name: health(live) for name, live in lives.items()})
        keys = ("state", "trouble", "fps", "frames")
        return {"cameras": [{"name": name, **{key: one[key] for key in keys}} for name, one in told.items()]}

    @app.get("/api/health")
    async def get_health() -> Response:
        """The health of every camera; 503 if one is in trouble."""
        told = await run_in_threadpool(lambda: {name: health(live) for name, live in lives.items()})
        troubles = [f"{name}: {one['trouble']}" for name, one in told.items() if one["trouble"]]
        status = {"status": "trouble" if troubles else "ok", "trouble": " ".join(troubles), "cameras": told}
        return JSONResponse(status, 503 if troubles else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Metrics in Prometheus' text format, with the label camera."""
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    for name, live in lives.items():
        app.add_route(f"/{name}", _add_slash)  # a page's links are relative
        app.mount(f"/{name}", stream_application(live, token=token, base_path=f"{base_path}/{name}"))
    return app


def _add_slash(request: Request) -> Response:
    return RedirectResponse(f"{request.scope['path'].rpartition('/')[2]}/")


class _Joined(Collector):
    """Collector of the metrics of all streams, each sample with the name of its camera."""

    def __init__(self, lives: Mapping[str, Live]) -> None:
        self._lives = lives

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for name, live in self._lives.items():
            for family in live.telemetry.collect():
                joined = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    joined.samples.append(sample._replace(labels={"camera": name, **sample.labels}))
        return families.values()
