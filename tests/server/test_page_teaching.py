"""Showing an object on the page, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.browser import Browser, Page
from support.served import Serve, Served, Square, wait_until

SHOWN = """(c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let sum = 0; for (let i = 0; i < d.length; i += 4) sum += d[i] < 120 && d[i + 2] > 100; return sum; })(
    document.querySelector('#drawing'))"""
"""Pixels under the blue of the mask; the scene is red and green."""


def watch(browser: Browser, served: Served, **options: Any) -> Page:
    """Open the page and wait until everything has its place."""
    page = browser.open(served.url, **options)
    page.wait(
        "Number(document.querySelector('#picture').dataset.drawn ?? 0) > 2 && !document.querySelector('#show').hidden"
    )
    return page


def show(browser: Browser, served: Served, **options: Any) -> Page:
    """Open the page and begin to show an object."""
    page = watch(browser, served, **options)
    page.click("#show")
    page.wait("!document.querySelector('#drawing').hidden")
    page.run("document.querySelector('#figure').scrollIntoView()")
    return page


def drag(page: Page, start: tuple[float, float], end: tuple[float, float], *, touch: bool = False) -> None:
    """Drag over the picture, with places as shares of it."""
    x, y, width, height = page.run(
        "(b => [b.x, b.y, b.width, b.height])(document.querySelector('#drawing').getBoundingClientRect())"
    )
    for index, share in enumerate((0.0, 0.5, 1.0, 1.0)):
        at = {
            "x": x + width * (start[0] + share * (end[0] - start[0])),
            "y": y + height * (start[1] + share * (end[1] - start[1])),
        }
        if touch:
            kind = ("touchStart", "touchMove", "touchMove", "touchEnd")[index]
            page.do("Input.dispatchTouchEvent", type=kind, touchPoints=[] if kind == "touchEnd" else [at])
        else:
            kind = ("mousePressed", "mouseMoved", "mouseMoved", "mouseReleased")[index]
            page.do("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **at)


def test_a_box_is_drawn_and_learned_while_the_stream_runs(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    served = serve("the dog", source=Square)
    page = show(browser, served)
    drag(page, (0.02, 0.1), (0.98, 0.9))
    page.wait(f"{SHOWN} > 1000")
    frames = served.live.telemetry.frames
    page.run("document.querySelector('#teach-name').value = 'my mug'")
    page.click("#teach button.primary")
    page.wait("document.querySelector('#queries .query').value === '@my mug'")
    assert page.run("document.querySelector('#drawing').hidden")
    wait_until(lambda: served.after(1).queries == ("my mug",))
    assert served.live.telemetry.frames > frames
    page.wait("document.querySelector('#taught span').textContent.startsWith('1 shown: ')")
    page.type("#taught input", "her mug")
    page.wait("document.querySelector('#queries .query').value === '@her mug'")
    data = served.request("GET", "/api/taught/her%20mug").body
    assert page.run("document.querySelector('#taught a').href").endswith("/api/taught/her%20mug")
    page.click("#taught button")  # undo
    page.wait("document.querySelector('#queries .query').value === 'the dog'")
    (tmp_path / "mug.query").write_bytes(data)
    document = page.do("DOM.getDocument")["root"]["nodeId"]
    chooser = page.do("DOM.querySelector", nodeId=document, selector="#query-file")["nodeId"]
    page.do("DOM.setFileInputFiles", nodeId=chooser, files=[str(tmp_path / "mug.query")])
    page.wait("document.querySelectorAll('#queries .query')[1]?.value === '@her mug'")
    assert page.troubles == []
    page.close()


def test_paint_erase_and_undo(browser: Browser, serve: Serve) -> None:
    page = show(browser, serve("the dog", source=Square))
    assert page.run(SHOWN) == 0
    page.click("#teach label:nth-child(2) input")
    drag(page, (0.2, 0.5), (0.8, 0.5))
    painted = page.run(SHOWN)
    assert painted > 100
    page.click("#teach label:nth-child(3) input")
    drag(page, (0.2, 0.5), (0.5, 0.5))
    assert 0 < page.run(SHOWN) < painted
    page.click("#teach-undo")
    assert page.run(SHOWN) == painted
    page.click("#teach-clear")
    assert page.run(SHOWN) == 0
    page.click("#teach button.primary")
    page.wait("document.querySelector('#teach .error').textContent.startsWith('nothing is shown yet')")
    page.press("Escape", "", 27)
    page.wait("document.querySelector('#drawing').hidden")
    page.close()


def test_the_keyboard_alone_is_enough(browser: Browser, serve: Serve) -> None:
    served = serve("the dog", source=Square)
    page = watch(browser, served)
    page.press("t", "t", 84)
    page.wait("document.activeElement.id === 'drawing'")
    for key, code, times in (("ArrowLeft", 37, 11), ("ArrowUp", 38, 7)):
        for _ in range(times):
            page.do("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, modifiers=8)
    page.press(" ", " ", 32)
    for key, code, times in (("ArrowRight", 39, 20), ("ArrowDown", 40, 13)):
        for _ in range(times):
            page.do("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, modifiers=8)
    page.press(" ", " ", 32)
    page.wait(f"{SHOWN} > 1000")
    assert not served.live.controls.wanted.settings.paused  # the space bar drew
    page.run("document.querySelector('#teach-name').focus()")
    page.press("Enter", "\r", 13)
    page.wait("document.querySelector('#queries .query').value === '@the dog'")
    page.close()


def test_a_finger_on_a_phone(browser: Browser, serve: Serve) -> None:
    served = serve("the dog", source=Square)
    page = show(browser, served, width=390, height=844, phone=True)
    page.click("#teach label:nth-child(2) input")
    drag(page, (0.3, 0.5), (0.7, 0.5), touch=True)
    page.wait(f"{SHOWN} > 100")
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
