"""Hook of mkdocs: links to files outside docs/, which a checkout has and the site has not, become plain text."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    return re.sub(
        r"\[([^]]+)\]\((?:\.\./)+(?:examples|cpp_bindings|benchmarks|rvos_edge|trainer|export|tests)/[^)]*\)",
        r"\1",
        markdown,
    )
