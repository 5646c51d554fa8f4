"""The page as a tool, in a real browser: its camera, what is shown of queries, keys, errors, and its accessibility."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.browser import Browser, Page
from support.served import Serve, Served, wait_until, write_clip

AXE = Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js"


def watch(browser: Browser, served: Served, **options: object) -> Page:
    """Open the page and wait until it shows pictures and the queries."""
    page = browser.open(served.url, **options)  # type: ignore[arg-type]
    page.wait(
        "Number(document.querySelector('#picture').dataset.drawn ?? 0) > 0"
        " && document.querySelectorAll('#queries .query').length > 0"
    )
    return page


@pytest.mark.skipif(not AXE.is_file(), reason=f"needs axe-core: npm install --no-save --prefix {sys.prefix} axe-core@4")
def test_axe_finds_nothing(browser: Browser, serve: Serve) -> None:
    served = serve("the dog", "a cat")
    for dark in (False, True):
        for size in ({}, {"width": 390, "height": 844, "phone": True}):
            page = watch(browser, served, dark=dark, **size)
            page.run(AXE.read_text(encoding="utf-8") + ";0")
            for opened in ("#queries .more", "#timing summary"):
                page.run(f"document.querySelector('{opened}').click()")
            scan = (
                "axe.run({resultTypes: ['violations']})"
                ".then(found => JSON.stringify(found.violations.map(v => [v.id, v.nodes.length])))"
            )
            assert json.loads(page.run(scan)) == [], (dark, size)
            if dark and size:  # while a sheet is open the rest is inert, and not looked at
                page.run("document.querySelector('#shortcuts').click()")
                assert json.loads(page.run(scan)) == [], (dark, size)
            assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
            page.close()


def test_the_camera_of_the_browser_is_segmented(browser: Browser, serve: Serve) -> None:
    served = serve("the dog")
    page = watch(browser, served)
    page.click("#camera")
    page.wait("document.querySelector('#sources input:checked')?.value === 'camera'")
    wait_until(lambda: served.collector.results[-1].masks.shape[2] > 128)
    page.wait("document.querySelector('#picture').width > 128")
    page.click("#camera")
    page.wait("document.querySelector('#message').textContent.includes('turned off')")
    assert page.troubles == []
    page.close()


def test_queries_are_hidden_shown_alone_and_renamed(browser: Browser, serve: Serve) -> None:
    served = serve("the dog", "a cat")
    page = watch(browser, served)
    page.click("#queries .swatch")
    wait_until(lambda: served.live.controls.wanted.settings.hidden == ["the dog"])
    page.wait("document.querySelector('#queries li').matches('.hidden')")
    page.click("#queries .more")
    page.click("#queries .only")
    wait_until(lambda: served.live.controls.wanted.settings.hidden == ["a cat"])
    page.type("#queries .label", "Rex")
    wait_until(lambda: served.live.controls.wanted.settings.labels == {"the dog": "Rex"})
    page.wait("document.querySelector('#presence polyline')?.getAttribute('points').split(' ').length > 2")
    served.request("PUT", "/api/settings", {"paused": True})  # what flickers is not told
    page.wait("document.querySelector('#said').textContent.match(/(Rex|the dog): (not )?found/)")
    page.click("#examples button")
    wait_until(lambda: len(served.live.controls.wanted.queries) == 3)
    page.type("#queries .query", "dog " * 30)  # errors stand beside their field
    page.wait("document.querySelector('#queries li .error').textContent.includes('at most 16')")
    described = "document.getElementById(document.querySelector('#queries .query').getAttribute('aria-describedby'))"
    page.wait("document.querySelector('#queries .query').value === 'the dog'")
    assert "at most 16" in page.run(f"{described}.textContent")
    assert page.run("document.querySelector('#message').textContent") == ""
    page.close()


def test_a_clip_is_wound_and_keys_can_be_turned_off(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    served = serve("the dog")
    page = watch(browser, served)
    assert page.run("document.querySelector('#timeline').hidden")
    source = served.request("POST", "/api/clips", write_clip(tmp_path / "a.mp4", frames=50)).json["source"]
    served.request("PUT", "/api/source", {"source": source})
    page.wait("!document.querySelector('#timeline').hidden")
    page.press(".", ".", 190)
    wait_until(lambda: served.live.controls.wanted.settings.paused)
    page.run("(s => { s.value = 1.2; s.dispatchEvent(new Event('input')); })(document.querySelector('#seek'))")
    page.wait("document.querySelector('#place').textContent === '0:01.20 / 0:02.00'")
    page.press(",", ",", 188)
    page.wait("document.querySelector('#place').textContent === '0:01.16 / 0:02.00'")
    page.press("?", "?", 191)
    page.wait("document.querySelector('#shortcuts-sheet').open")
    page.click("#keys-on")
    page.run("document.querySelector('#shortcuts-sheet').close()")
    page.press(",", ",", 188)
    page.press("r", "r", 82)
    page.click("#forward")
    page.wait("document.querySelector('#place').textContent === '0:01.20 / 0:02.00'")
    assert not served.live.recorder.running
    page.run("localStorage.clear()")
    page.close()
