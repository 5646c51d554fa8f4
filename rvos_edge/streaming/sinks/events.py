"""Events: a query that appears or is gone, a camera that is lost or back; to a file, a webhook or an MQTT broker."""

from __future__ import annotations

import base64
import http.client
import re
import sys
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.result import Result, rounded
from rvos_edge.secrets import hide_secrets
from rvos_edge.streaming.sinks.base import Sink
from rvos_edge.streaming.sinks.lines import LineFile, moment, to_json, utc
from rvos_edge.streaming.sources import Frame, SourceEvent, Tell, tell_stderr
from rvos_edge.streaming.tracks import Tracks, Zone, Zones

EVENT_URL = re.compile(r"(https?|mqtts?)://", re.IGNORECASE)
_MOST_WAITING = 1000
_LONGEST_PAUSE = 60.0
_SECONDS = 10.0
"""For the answer of a webhook."""
_LAST_SECONDS = 3.0
"""At the end of the stream, for what still waits."""


class Channel(Protocol):
    """Takes events, from any thread."""

    def send(self, records: Iterable[dict[str, Any]]) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class QueryEvents:
    """Finds the events of the queries: objects that appear, are gone and return, enter and leave zones, cross lines.

    Args:
        per_object: Every part of a mask is an object of its own.

    Raises:
        UserError: A package is needed for this and not installed.
    """

    def __init__(self, zones: Sequence[Zone] = (), *, per_object: bool = False) -> None:
        self._tracks, self._zones = Tracks(several=per_object), Zones(zones)
        self._known: set[int] = set()

    def update(self, frame: Frame, result: Result) -> Iterator[dict[str, Any]]:
        """The events of the next frame, without the camera's name."""
        before = self._tracks.there
        tracks = self._tracks.update(result)
        now, presence = self._tracks.there, dict(zip(result.queries, result.presence, strict=True))
        boxes = {track.id: track.box for track in tracks}

        def event(number: int, query: str, **what: str) -> dict[str, Any]:
            return {
                **what,
                "query": query,
                "track": number,
                "frame": frame.index,
                **moment(frame),
                "source": frame.name,
                "presence": rounded(presence.get(query, 0.0), 4),
                "bbox": list(boxes[number]) if number in boxes else None,
            }

        for number, query in before.items():
            if number not in now and query in presence:
                yield event(number, query, event="gone")
        for number, query in now.items():
            if number not in before:
                yield event(number, query, event="returned" if number in self._known else "appeared")
        self._known |= now.keys()
        for track, what in self._zones.update(tracks, result.masks.shape[1:]):
            yield event(track.id, track.query, **what)


class EventSink(Sink):
    """Sends a JSON object for every event of the queries, and when a camera is lost or back.

    Keys: event ("appeared", "gone", "returned", "entered", "left", "crossed", or "camera " and a kind of
    `SourceEvent`), camera, time (UTC, null in a file's frames); of a query also query, track (its number, the same
    when it returns), frame, timestamp (seconds), source, presence, bbox ([x0, y0, x1, y1] in pixels, or null without a
    mask), zone, or line and direction; of a camera also message, cause.

    Args:
        target: A file, a pipe, "-" for stdout, http:// or https:// (an event is the body of a POST), or
            mqtt://HOST/TOPIC.
        camera: Name of the source.
        queries: Goes on from one sink to the next, where a recording is cut into several.
    """

    def __init__(
        self, target: str | Path, *, camera: str = "", queries: QueryEvents | None = None, tell: Tell = tell_stderr
    ) -> None:
        scheme = EVENT_URL.match(str(target))
        self._camera = camera
        self._channel: Channel
        if scheme is None:
            self._channel = LineFile(target)
        elif scheme[1].lower().startswith("http"):
            self._channel = Webhook(str(target), tell=tell)
        else:
            self._channel = Mqtt(str(target), tell=tell)
        self._queries = queries or QueryEvents()
        self._lock = threading.Lock()
        self._closed = False

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        records = [
            {"event": found.pop("event"), "camera": self._camera, **found}
            for found in self._queries.update(frame, result)
        ]
        if records:
            with self._lock:
                self._channel.send(records)

    def write_source(self, event: SourceEvent) -> None:
        """Send an event of the camera; from any thread."""
        record = {"event": f"camera {event.kind}", "camera": self._camera, "time": utc(event.time)}
        with self._lock:
            if not self._closed:
                self._channel.send([{**record, "message": event.message, "cause": event.cause}])

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._channel.close()

    def abort(self) -> None:
        with self._lock:
            self._closed = True
            self._channel.abort()


class Webhook:
    """Posts each event to a URL, from a thread; while that cannot be reached, the newest events wait."""

    def __init__(self, url: str, *, tell: Tell = tell_stderr, pause: float = 1.0) -> None:
        parts = urlsplit(url)
        self._name = hide_secrets(url)
        if not parts.hostname:
            raise UserError(f"--events {self._name} names no host; write it as https://HOST/PATH")
        self._headers = {"content-type": "application/json", "user-agent": "rvos-edge"}
        user, at, host = parts.netloc.rpartition("@")
        if at:
            self._headers["authorization"] = f"Basic {base64.b64encode(unquote(user).encode()).decode()}"
        self._url = urlunsplit(parts._replace(netloc=host))
        self._tell, self._pause = tell, pause
        self._waiting: deque[str] = deque(maxlen=_MOST_WAITING)
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def send(self, records: Iterable[dict[str, Any]]) -> None:
        with self._news:
            self._waiting.extend(map(to_json, records))
            self._news.notify()

    def close(self) -> None:
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join(_LAST_SECONDS)
        if self._waiting:
            self._tell(f"{self._name} did not take the last {len(self._waiting)} events")

    def abort(self) -> None:
        self._waiting.clear()
        self.close()

    def _run(self) -> None:
        pause, failing = self._pause, False
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                text, last = self._waiting[0], self._closing
            trouble, again = self._post(text)
            if trouble and not failing:
                self._tell(f"{self._name} takes no events ({trouble})")
            failing = bool(trouble)
            with self._news:
                if not (trouble and again):
                    pause = self._pause
                    if self._waiting and self._waiting[0] is text:  # it is not, if too many came meanwhile
                        self._waiting.popleft()
                elif last:
                    return
                else:
                    self._news.wait_for(lambda: self._closing, pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)

    def _post(self, text: str) -> tuple[str, bool]:
        """Trouble, empty for none, and True if it may pass."""
        try:
            request = urllib.request.Request(self._url, text.encode(), self._headers, method="POST")
            with urllib.request.urlopen(request, timeout=_SECONDS):
                return "", False
        except urllib.error.HTTPError as error:
            return f"status {error.code}", error.code >= 500 or error.code in (408, 429)
        except (OSError, ValueError, http.client.HTTPException) as error:  # the last where no web server answers
            return str(getattr(error, "reason", error)) or type(error).__name__, True


class Mqtt:
    """Publishes each event under a topic, at least once; while the broker cannot be reached they wait."""

    def __init__(self, url: str, *, tell: Tell = tell_stderr) -> None:
        try:
            from paho.mqtt import client as mqtt  # an optional extra
            from paho.mqtt.enums import CallbackAPIVersion
        except ModuleNotFoundError as error:
            raise UserError('--events mqtt:// needs paho-mqtt; run: pip install "rvos-edge[mqtt]"') from error
        parts, self._name = urlsplit(url), hide_secrets(url)
        self._topic = unquote(parts.path[1:])
        if not parts.hostname or not self._topic or set("+#") & set(url):
            raise UserError(f"--events {self._name} is no topic of a broker; write it as mqtt://HOST:PORT/TOPIC")
        self._tell, self._trouble = tell, ""
        secure = parts.scheme.lower() == "mqtts"
        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if parts.username:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if secure:
            client.tls_set()
        client.max_queued_messages_set(_MOST_WAITING)
        client.reconnect_delay_set(1, int(_LONGEST_PAUSE))
        client.on_connect = lambda _client, _data, _flags, reason, _properties: self._told(
            str(reason) if reason.is_failure else ""
        )
        client.on_connect_fail = lambda _client, _data: self._told(
            str(getattr(sys.exc_info()[1], "strerror", None) or "no connection")
        )
        # Also what a broker does that expects TLS.
        client.on_disconnect = lambda _client, _data, _flags, reason, _properties: self._told(
            self._trouble or ("connection closed" if reason.is_failure else "")
        )
        client.on_publish = lambda *_: self._count(-1)
        self._waiting, self._news = 0, threading.Condition()
        self._full = mqtt.MQTT_ERR_QUEUE_SIZE
        client.connect_async(parts.hostname, parts.port or (8883 if secure else 1883))
        client.loop_start()

    def _told(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            self._tell(f"{self._name} takes no events ({trouble}); trying again")
        self._trouble = trouble

    def _count(self, change: int) -> None:
        with self._news:
            self._waiting += change
            self._news.notify()

    def send(self, records: Iterable[dict[str, Any]]) -> None:
        for record in records:
            self._count(1)
            if self._client.publish(self._topic, to_json(record), qos=1).rc == self._full:
                self._count(-1)

    def close(self) -> None:
        with self._news:
            if not self._news.wait_for(lambda: self._waiting <= 0, _LAST_SECONDS):
                self._tell(f"{self._name} did not take the last {self._waiting} events")
        self.abort()

    def abort(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
