"""The page in a real browser."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from support.browser import Browser, Page
from support.served import Serve, Served, wait_until, write_clip

from rvos_edge.server import guard
from rvos_edge.server.address import Address

DRAWN = "Number(document.querySelector('#picture')?.dataset.drawn ?? 0)"
PIXELS = """(c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).reduce(
    (sum, value, index) => (sum * 31 + value * (index % 7 + 1)) % 1000003, 0))(document.querySelector('#picture'))"""


def texts(page: Page) -> list[str]:
    return list(page.run("[...document.querySelectorAll('#queries .query')].map(input => input.value)"))


def watch(browser: Browser, served: Served, **options: object) -> Page:
    """Open the page and wait until it shows moving pictures and the queries."""
    page = browser.open(served.url, **options)  # type: ignore[arg-type]
    page.wait(f"{DRAWN} > 2 && document.querySelectorAll('#queries .query').length > 0")
    return page


def settled(page: Page) -> int:
    """A number for the picture of a paused stream, once the last one has been drawn."""
    numbers = [page.run(PIXELS), -1]
    while numbers[0] != numbers[1]:
        time.sleep(0.1)
        numbers = [page.run(PIXELS), numbers[0]]
    return int(numbers[0])


def test_the_page_shows_the_stream_and_a_typed_query_changes_the_mask(browser: Browser, serve: Serve) -> None:
    served = serve("the dog")
    page = watch(browser, served)
    assert page.run("document.title") == "rvos-edge"
    assert page.run("document.querySelector('#picture').width") == 128
    assert texts(page) == ["the dog"]
    page.click("#pause")  # so that nothing but the words changes the picture
    wait_until(lambda: served.live.controls.shown.settings.paused)
    page.wait("document.querySelector('#pause').getAttribute('aria-pressed') === 'true'")
    before, shown = settled(page), served.collector.results[-1]
    page.type("#queries .query", "a red ball")
    wait_until(lambda: served.collector.results[-1].queries == ("a red ball",))
    assert not np.array_equal(shown.masks, served.collector.results[-1].masks)
    page.wait(f"{PIXELS} !== {before}")
    assert page.troubles == []
    page.close()


def test_queries_are_added_removed_and_refused(browser: Browser, serve: Serve) -> None:
    served = serve("the dog")
    page = watch(browser, served)
    page.type("#new-query", "a red ball")
    wait_until(lambda: served.live.controls.shown.queries == ("the dog", "a red ball"))
    page.wait("document.querySelectorAll('#queries li').length === 2")
    assert page.run("document.querySelector('#new-query').value") == ""
    colours = page.run("[...document.querySelectorAll('.swatch')].map(swatch => swatch.style.borderColor)")
    assert colours == ["rgb(230, 159, 0)", "rgb(86, 180, 233)"]  # as the overlay draws their outlines
    page.type("#new-query", "dog " * 30)
    page.wait("document.querySelector('#add + .error').textContent.includes('at most 16')")
    assert served.after(2).queries == ("the dog", "a red ball")
    page.click("#queries .remove")
    wait_until(lambda: served.live.controls.shown.queries == ("a red ball",))
    page.wait("document.querySelectorAll('#queries li').length === 1")
    page.click("#queries .remove")
    wait_until(lambda: served.live.controls.shown.queries == ())
    assert served.after(2).masks.shape == (0, 96, 128)  # the bare picture
    page.type("#new-query", "the cat")
    wait_until(lambda: served.live.controls.shown.queries == ("the cat",))
    page.close()


def test_two_viewers_see_each_others_edits_and_a_stalled_one_holds_up_nobody(browser: Browser, serve: Serve) -> None:
    served = serve("the dog")
    first, second = (watch(browser, served), watch(browser, served, width=390, height=844, phone=True))
    first.type("#queries .query", "the cat")
    second.wait("document.querySelector('#queries .query').value === 'the cat'")
    # A page that is busy for ever reads nothing; its renderer is stopped in the debugger.
    second.do("Debugger.enable")
    second.do("Debugger.pause")
    frames, drawn = served.live.telemetry.frames, first.run(DRAWN)
    first.wait(f"{DRAWN} > {drawn} + 5")
    assert served.live.telemetry.frames > frames
    second.do("Debugger.disable")
    assert second.run("document.documentElement.scrollWidth <= window.innerWidth")  # nothing hangs over on a phone
    first.close()
    second.close()
    wait_until(lambda: served.live.hub.viewers == 0)


def test_right_to_left_words_are_set_from_the_right(browser: Browser, serve: Serve) -> None:
    served = serve("the dog")
    page = watch(browser, served)
    page.type("#new-query", "الكلب الأحمر")
    wait_until(lambda: served.live.controls.shown.queries == ("the dog", "الكلب الأحمر"))
    page.wait("document.querySelectorAll('#queries .query').length === 2")
    directions = "[...document.querySelectorAll('#queries .query')].map(input => getComputedStyle(input).direction)"
    assert page.run(directions) == ["ltr", "rtl"]
    page.close()


def test_sliders_and_toggles(browser: Browser, serve: Serve) -> None:
    served = serve("the dog")
    page = watch(browser, served)
    for name, value in (("threshold", 88), ("opacity", 20), ("iterations", 9)):
        page.run(
            f"(s => {{ s.value = {value}; s.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
            f"(document.querySelector('#{name}'))"
        )
    page.click(".toggles [name=flow]")
    wait_until(lambda: served.live.controls.shown.settings.flow)
    page.run("(s => { s.value = 'on'; s.dispatchEvent(new Event('change')); })(document.querySelector('#adapt'))")
    wait_until(lambda: served.live.controls.shown.settings.adapt == "on")
    settings = served.live.controls.shown.settings
    assert settings.threshold == 0.88
    assert (settings.opacity, settings.iterations, settings.mask) == (0.2, 9, True)
    page.wait("document.querySelector('output[for=threshold]').textContent === '88 %'")
    served.request("PUT", "/api/settings", {"opacity": 0.7})  # by somebody else
    page.wait("document.querySelector('#opacity').value === '70'")
    assert page.run("document.querySelectorAll('#stages li').length") >= 8
    page.close()


def test_keyboard(browser: Browser, serve: Serve) -> None:
    served = serve("the dog", "the cat")
    page = watch(browser, served)
    page.press(" ", " ", 32)
    wait_until(lambda: served.live.controls.shown.settings.paused)
    page.wait("document.querySelector('#pause').getAttribute('aria-pressed') === 'true'")
    page.press(" ", " ", 32)
    wait_until(lambda: not served.live.controls.wanted.settings.paused)
    page.press("/", "/", 191)
    page.wait("document.activeElement.id === 'new-query'")
    page.press("Escape", "", 27)
    page.press("2", "2", 50)
    page.wait("document.activeElement === document.querySelectorAll('#queries .query')[1]")
    page.press("Escape", "", 27)
    page.press("r", "r", 82)
    wait_until(lambda: served.live.recorder.running)
    page.wait("document.querySelector('#record').getAttribute('aria-pressed') === 'true'")
    served.after(5)
    page.press("r", "r", 82)
    page.wait("document.querySelectorAll('#recordings a').length === 1")
    unnamed = """[...document.querySelectorAll('button, input, select, a')].filter(e => !e.hidden && !(
        e.ariaLabel || e.labels?.length || e.textContent.trim())).length"""
    assert page.run(unnamed) == 0
    page.close()


def test_a_clip_is_uploaded_and_played(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    served = serve("the dog")
    write_clip(tmp_path / "holiday.mp4")
    page = watch(browser, served)
    document = page.do("DOM.getDocument")["root"]["nodeId"]
    chooser = page.do("DOM.querySelector", nodeId=document, selector="#clip")["nodeId"]
    page.do("DOM.setFileInputFiles", nodeId=chooser, files=[str(tmp_path / "holiday.mp4")])
    page.wait("document.querySelector('#sources input:checked')?.parentElement.textContent === 'holiday.mp4'")
    page.wait("document.querySelector('#picture').width === 64")
    assert page.troubles == []
    page.close()


def test_dark_and_light_follow_the_system_and_the_button(browser: Browser, serve: Serve) -> None:
    served = serve("the dog")
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = watch(browser, served), watch(browser, served, dark=True)
    colours = light.run(ground), dark.run(ground)
    assert colours[0] != colours[1]
    dark.click("#theme")
    dark.wait(f"{ground} === {json.dumps(colours[0])}")
    dark.click("#theme")
    dark.wait(f"{ground} === {json.dumps(colours[1])}")
    light.close()
    dark.close()


def test_the_page_comes_back_after_the_server_was_gone(browser: Browser, serve: Serve) -> None:
    served = serve("the dog")
    page = watch(browser, served)
    served.page_server.close()
    page.wait("document.querySelector('#state').dataset.state === 'lost'")
    again = serve("the cat", address=Address(port=served.port))
    page.wait("document.querySelector('#queries .query').value === 'the cat'")
    drawn = page.run(DRAWN)
    page.wait(f"{DRAWN} > {drawn} + 3")
    assert again.live.hub.viewers == 1
    page.close()


def test_the_token_is_typed_once(browser: Browser, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "GUESS_SECONDS", 0.0)
    served = serve("the dog", token="correct horse")
    page = browser.open(served.url)
    page.type("#token", "wrong")
    page.wait("document.body.textContent.includes('not the token')")
    page.type("#token", "correct horse")
    page.wait(f"{DRAWN} > 2")
    assert "token" not in page.run("location.href")
    page.close()
