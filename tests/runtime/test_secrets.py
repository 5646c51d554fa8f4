"""No password, token or stream key is shown."""

from __future__ import annotations

import pytest

from rvos_edge.errors import UserError
from rvos_edge.secrets import hide_secrets
from rvos_edge.streaming.sources import open_source, tell_stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:secret@camera/live", "rtsp://camera/live"),
        ("rtsp://me:sec/ret@camera:554/live is lost", "rtsp://camera:554/live is lost"),
        ("'rtsp://me:sec@re?t@camera/live'; check it", "'rtsp://camera/live'; check it"),
        ("https://host/a.mp4?user=me&password=secret.", "https://host/a.mp4?user=***&password=***."),
        ("http://host/?secret", "http://host/?***"),
        ("srt://host:9?streamid=secret&passphrase=secret", "srt://host:9?streamid=***&passphrase=***"),
        ("rtmp://live.host/app/secret", "rtmp://live.host/app/***"),
        ("rtmps://live.host/secret", "rtmps://live.host/***"),
        ("ftpx://me:secret@host and rtsp://me:secret@host", "ftpx://host and rtsp://host"),
        ("csi://0?width=1280&fps=30", "csi://0?width=1280&fps=30"),
        ("C:/video.mp4, a@b and 1?x=2", "C:/video.mp4, a@b and 1?x=2"),
    ],
)
def test_urls_without_their_secrets(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


def test_errors_and_messages_hide_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as caught:
        open_source("rtps://me:sec/ret@camera/?token=secret")  # the scheme is misspelt
    assert "'rtps://camera/?token=***'" in str(caught.value)
    tell_stderr("rtsp://me:secret@camera/ is lost")
    assert capsys.readouterr().err == "rtsp://camera/ is lost\n"
