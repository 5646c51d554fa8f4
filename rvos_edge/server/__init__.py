"""The live page and its HTTP and WebSocket API, beside a running stream.

Example:
    >>> server = LiveServer(segmenter, source, address=parse_address("8000"))  # doctest: +SKIP
    >>> with server:  # doctest: +SKIP
    ...     run_stream(server.segmenter, server.source, [server.sink])
"""
