"""The live page and its HTTP and WebSocket API, beside a running stream.

Example:
    >>> live = Live(segmenter, source, reopen=reopen, stills=open_stills)  # doctest: +SKIP
    >>> with LiveServer(live, ServerOptions()):  # doctest: +SKIP
    ...     run_stream(live.segmenter, live.player, [live.sink])
"""
