"""Edits of a running stream, the player of sources, and drawn pictures."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from support.served import Pictures, Serve, picture, wait_until

from rvos_edge.errors import UserError
from rvos_edge.result import Result
from rvos_edge.segmenter import Segmenter
from rvos_edge.server.controls import LiveSegmenter, ServerControls, Settings
from rvos_edge.server.player import Choice, Player
from rvos_edge.server.rendering import draw_picture, encode_jpeg, fit, flow_colours
from rvos_edge.streaming.sources import Frame, LiveCapture, Source
from rvos_edge.streaming.sources.base import UnavailableError
from rvos_edge.streaming.sources.live import Capture


def test_edits_between_two_frames_are_applied_once(open_tiny: Callable[..., Segmenter]) -> None:
    segmenter = open_tiny()
    segmenter.set_queries(["the dog"])
    controls = ServerControls(segmenter)
    live = LiveSegmenter(segmenter, controls)
    assert live.step(picture(0)).queries == ("the dog",)
    for number in range(50):
        controls.edit([f"the dog {number}"], {"iterations": 1 + number % 5})
    assert segmenter.queries == ("the dog",)
    result = live.step(picture(1))
    assert result.queries == ("the dog 49",)
    assert result.decision is not None
    assert result.decision.iterations == 5
    assert controls.shown.revision == controls.wanted.revision == 50


def test_queries_settle_on_demand(open_tiny: Callable[..., Segmenter]) -> None:
    segmenter = open_tiny()
    segmenter.set_adapt("once")
    segmenter.set_queries(["the dog"])
    controls = ServerControls(segmenter)
    live = LiveSegmenter(segmenter, controls)
    assert controls.shown.settings.adapt == "once"
    for adapt in ("off", "on", "once"):
        controls.edit(settings={"adapt": adapt})
        assert not live.step(picture(0)).adapted.any()
        assert segmenter.adapt == adapt


def test_edits_do_not_interrupt_the_video(open_tiny: Callable[..., Segmenter]) -> None:
    """Only words change: the flow continues from the frame before."""
    plain, edited = open_tiny(), open_tiny()
    plain.set_queries(["a cat"])
    edited.set_queries(["the dog"])
    controls = ServerControls(edited)
    live = LiveSegmenter(edited, controls)
    for index in range(4):
        if index == 2:
            controls.edit(["a cat"])
        expected, got = plain.step(picture(index)), live.step(picture(index))
    assert np.array_equal(expected.margins, got.margins)


def test_without_queries_the_picture_is_bare_and_the_video_starts_again_later(
    open_tiny: Callable[..., Segmenter],
) -> None:
    segmenter = open_tiny()
    controls = ServerControls(segmenter)
    live = LiveSegmenter(segmenter, controls)
    assert live.step(picture(0)).masks.shape == (0, 96, 128)
    controls.edit(["the dog"])
    result = live.step(picture(1))
    assert result.masks.shape == (1, 96, 128)
    assert result.decision is not None
    assert result.decision.reason == "first frame"
    with pytest.raises(UserError, match="uint8 array"):
        live.step(np.zeros((4, 4, 3), np.float32))


def test_an_edit_that_cannot_be_applied_changes_nothing(
    open_tiny: Callable[..., Segmenter], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = open_tiny()
    segmenter.set_queries(["the dog"])
    controls = ServerControls(segmenter)
    live = LiveSegmenter(segmenter, controls)
    controls.edit(["a cat"])

    def fail(queries: object) -> None:
        raise UserError("the engine takes no more; use fewer.")

    monkeypatch.setattr(segmenter, "set_queries", fail)
    assert live.step(picture(0)).queries == ("the dog",)
    assert controls.error == "the engine takes no more; use fewer."
    assert controls.wanted.queries == ("the dog",)
    live.step(picture(1))
    assert controls.error  # until the next edit
    controls.edit(settings={"opacity": 1.0})
    assert controls.error == ""


def test_an_edit_is_taken_whole_or_not_at_all(open_tiny: Callable[..., Segmenter]) -> None:
    segmenter = open_tiny()
    segmenter.set_queries(["the dog"])
    controls = ServerControls(segmenter)
    for queries, settings in ((["a cat"], {"opacity": 7}), (["a cat", " "], {"opacity": 0.1})):
        with pytest.raises(UserError):
            controls.edit(queries, settings)
        assert (controls.wanted.queries, controls.wanted.settings.opacity) == (("the dog",), 0.5)


def test_an_edit_that_fails_halfway_is_undone(
    open_tiny: Callable[..., Segmenter], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = open_tiny()
    segmenter.set_queries(["the dog"])
    controls = ServerControls(segmenter)
    live = LiveSegmenter(segmenter, controls)
    controls.edit(["a cat"], {"threshold": 0.7})

    def fail(threshold: float) -> None:
        raise UserError("the engine takes no threshold; leave it at 0.5.")

    monkeypatch.setattr(segmenter, "set_threshold", fail)
    assert live.step(picture(0)).queries == ("the dog",)
    assert segmenter.queries == ("the dog",)


def test_waiting_for_an_edit() -> None:
    controls = ServerControls(Nothing())  # type: ignore[arg-type]
    assert not controls.wait_for_edit(controls.wanted.revision, 0.01)
    threading.Timer(0.05, lambda: controls.edit(settings={"paused": True})).start()
    assert controls.wait_for_edit(0, 10)


class Nothing:
    """Segmenter that is asked nothing."""

    asked: tuple[str, ...] = ()
    threshold = 0.5
    iterations = None
    adapt = "off"


class Timed(Source):
    """Source of 50 frames per second."""

    def __init__(self, length: int) -> None:
        super().__init__(name="timed", fps=50.0, length=length)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.length or 0):
            yield Frame(picture(index), index, index / 50, f"{index:05d}", time.perf_counter())


class Breaking(Pictures):
    """Source that fails after three frames."""

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            if frame.index == 3:
                raise UserError("the camera was unplugged; plug it in.")
            yield frame


def test_a_source_that_breaks_waits_for_another_one(serve: Serve) -> None:
    served = serve("the dog", source=Breaking)
    wait_until(lambda: served.live.status()["state"] == "waiting")
    assert "unplugged" in served.request("GET", "/api/status").json["trouble"]
    assert served.live.telemetry.frames == 3
    assert served.request("PUT", "/api/source", {"source": "synthetic"}).status == 200
    assert served.after(2).masks.shape[1:] == (288, 512)
    assert served.live.status()["trouble"] == ""


class Empty(Pictures):
    """Source without frames."""

    def __iter__(self) -> Iterator[Frame]:
        return iter(())


def test_a_source_without_frames_is_not_opened_for_ever(serve: Serve) -> None:
    opened: list[Source] = []

    def source() -> Source:
        opened.append(Empty())
        return opened[-1]

    served = serve("the dog", source=source)
    wait_until(lambda: "gives no frames" in served.live.status()["trouble"])
    assert len(opened) == 1
    assert served.live.status()["state"] == "waiting"
    assert served.request("PUT", "/api/source", {"source": "synthetic"}).status == 200
    served.after(1)


def test_a_file_starts_again_as_another_video(serve: Serve) -> None:
    served = serve("the dog", source=lambda: Pictures(4), keep=100)
    wait_until(lambda: len(served.collector.results) >= 10)
    assert [result.index for result in served.collector.results[:10]] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_timestamps_grow_across_sources() -> None:
    controls = ServerControls(Nothing())  # type: ignore[arg-type]
    player = Player(Choice("start", "timed", lambda: Timed(3)), Timed(3), controls, restarted=lambda: None, repeat=True)
    frames = list(itertools.islice(player, 8))
    player.close()
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.timestamp for frame in frames] == pytest.approx([index / 50 for index in range(8)])
    assert len({frame.name for frame in frames}) == 8  # names of files


def test_another_source_can_be_chosen_while_a_camera_is_away() -> None:
    def connect() -> Capture:
        raise UnavailableError("not plugged in", "camera 0 cannot be opened")

    other = Choice("other", "timed", lambda: Timed(3))
    camera = LiveCapture(
        connect, name="camera 0", wait=True, tell=lambda _: threading.Thread(target=player.play, args=(other,)).start()
    )
    controls = ServerControls(Nothing())  # type: ignore[arg-type]
    player = Player(Choice("start", "camera 0", lambda: camera), camera, controls, restarted=lambda: None, repeat=True)
    assert len(list(itertools.islice(player, 3))) == 3
    assert player.choice is other
    player.close()


def test_without_repeat_the_stream_ends_with_its_file(serve: Serve) -> None:
    served = serve("the dog", source=lambda: Pictures(4), repeat=False)
    wait_until(lambda: served.live.telemetry.frames == 4)
    time.sleep(0.05)
    assert served.live.telemetry.frames == 4


def test_a_pause_holds_the_frame_and_shows_edits_on_it(serve: Serve) -> None:
    served = serve("the dog")
    revision = served.request("PUT", "/api/settings", {"paused": True}).json["revision"]
    wait_until(lambda: served.live.controls.shown.revision == revision)
    time.sleep(0.05)
    frames, held = served.live.telemetry.frames, served.live.sink.shown
    assert held is not None
    time.sleep(0.1)
    assert served.live.telemetry.frames == frames
    served.request("PUT", "/api/queries", {"queries": ["a cat"]})
    wait_until(lambda: served.live.telemetry.frames == frames + 1)
    shown = served.live.sink.shown
    assert shown is not None
    assert np.array_equal(shown.frame.image, held.frame.image)
    assert shown.result.queries == ("a cat",)
    served.request("PUT", "/api/settings", {"paused": False})
    served.after(3)


def test_files_are_played_at_their_own_speed() -> None:
    source = Timed(6)
    controls = ServerControls(Nothing())  # type: ignore[arg-type]
    choice = Choice("start", "timed", lambda: source)
    player = Player(choice, source, controls, restarted=lambda: None, repeat=False)
    times = [(frame.index, time.perf_counter()) for frame in player]
    assert [index for index, _ in times] == list(range(6))
    assert times[-1][1] - times[0][1] >= 0.09  # never faster; a slow machine may be slower


def test_settings_choose_what_is_drawn() -> None:
    image = picture(0)
    masks = np.zeros((1, 96, 128), bool)
    masks[0, 20:60, 30:90] = True
    flow = np.zeros((2, 24, 32), np.float32)
    flow[0] = -8
    result = Result(("a dog",), masks, np.zeros((1, 4, 4), np.float32), np.ones(1, np.float32), {}, True, flow, 0, None)
    bare = draw_picture(image, result, Settings(mask=False, outline=False, names=False))
    assert np.array_equal(bare, image)
    outline = (draw_picture(image, result, Settings(mask=False)) != image).any(2)
    mask = (draw_picture(image, result, Settings(outline=False)) != image).any(2)
    assert outline.any()
    assert not outline[30:50, 40:80].any()
    assert mask[30:50, 40:80].mean() > 0.9
    wheel = draw_picture(image, result, Settings(mask=False, outline=False, names=False, flow=True))
    assert (wheel == wheel[0, 0]).all()
    assert draw_picture(image, result, Settings(), legend=True).shape == image.shape


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2), (3, 4000)])
def test_pictures_of_any_size_are_drawn(size: tuple[int, int]) -> None:
    masks = np.ones((2, *size), bool)
    flow = np.zeros((2, 8, 8), np.float32)
    result = Result(("a", "b"), masks, np.zeros((2, 4, 4), np.float32), np.ones(2, np.float32), {}, True, flow, 0, None)
    drawn = draw_picture(np.zeros((*size, 3), np.uint8), result, Settings(flow=True), legend=True)
    assert drawn.shape == (*size, 3)
    small = fit(drawn, 1280)
    assert max(small.shape) <= 1280
    assert encode_jpeg(small, 80)[:2] == b"\xff\xd8"


def test_the_hue_of_flow_is_its_direction() -> None:
    flow = np.zeros((2, 1, 5), np.float32)
    # To the previous frame, so the other way round.
    flow[:, 0, 1], flow[:, 0, 2], flow[:, 0, 3], flow[:, 0, 4] = (-9, 0), (9, 0), (0, -9), (0, 9)
    still, right, left, down, up = (tuple(int(v) for v in colour[::-1]) for colour in flow_colours(flow)[0])
    assert still == (255, 255, 255)
    assert right == (255, 0, 0)
    assert left == pytest.approx((0, 255, 255), abs=2)
    assert down == pytest.approx((128, 255, 0), abs=2)
    assert up == pytest.approx((128, 0, 255), abs=2)
    assert np.isfinite(flow_colours(np.full((2, 3, 3), np.nan, np.float32))).all()
