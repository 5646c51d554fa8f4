"""The HTML page of a report, without scripts; its pictures lie beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rvos_edge.trainer.evaluate.tables import ResultTable
from rvos_edge.trainer.report.plots import Figure

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21; --faint: #5f6670; --line: #d8dce1; --code: #f3f4f6; }
@media (prefers-color-scheme: dark) {
  :root { --back: #15181c; --text: #e4e6e9; --faint: #9aa2ad; --line: #343a42; --code: #1f242a; }
}
body { margin: 2rem auto; max-width: 84rem; padding: 0 1rem; background: var(--back); color: var(--text);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { max-width: 62rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1.5rem 0 0; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
pre { background: var(--code); padding: .6rem .8rem; border-radius: 6px; white-space: pre-wrap;
      overflow-wrap: anywhere; font-size: .85rem; }
figure { margin: 1rem 0; } figcaption { color: var(--faint); font-size: .9rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
.note { color: var(--faint); }
.warning { border-left: 4px solid #d55e00; padding-left: .8rem; font-weight: 600; }
"""
_MOST_VIDEOS = 20


def render_page(
    content: Mapping[str, Any], tables: Mapping[str, ResultTable], notes: Sequence[str], figures: Sequence[Figure]
) -> str:
    """The page of a report, of the content of ``report.json``, the tables by the names of their files, notes about what
    is missing, and the figures in their order.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>rvos-edge report</title><style>{_STYLE}</style></head><body>",
        "<h1>Report</h1>",
        f"<p>{escape(_data(content['data']))}</p>",
        *(f'<p class="warning">{escape(warning)}</p>' for warning in content["warnings"]),
    ]
    for name, table in tables.items():
        parts += _table(name, table)
    parts += [f'<p class="note">{escape(note)}</p>' for note in notes]
    parts += ["<h2>Commands</h2>", *_commands(content)]
    for figure in figures:
        parts += _figure(figure)
    return "\n".join([*parts, "</body></html>", ""])


def _data(data: Mapping[str, Any]) -> str:
    videos = ", ".join(data["videos"][:_MOST_VIDEOS]) + (", ..." if len(data["videos"]) > _MOST_VIDEOS else "")
    scored = "Every annotated frame is scored" if data["every"] == 1 else f"One frame in {data['every']} is scored"
    return (
        f"{len(data['videos'])} videos of {data['root']}, {data['dataset']}, {data['split']} ({videos}). {scored}, "
        f"{data['frames']} in all, at its own size, by the rules of rvos-edge eval."
    )


def _table(name: str, table: ResultTable) -> list[str]:
    kind = ' class="words"' if name == "runs" else ""
    lines = [f'<div class="scroll"><table{kind}><caption>{escape(table.title)}</caption><tr>']
    lines += [f"<th>{escape(head)}</th>" for head in table.heads]
    for row in table.rows:
        lines += ["</tr><tr>", *(f"<td>{escape(cell)}</td>" for cell in row)]
    files = f'<a href="{name}.csv">CSV</a>, <a href="{name}.tex">LaTeX</a>'
    return [*lines, "</tr></table></div>", f'<p class="note">{escape(table.note)} {files}</p>']


def _commands(content: Mapping[str, Any]) -> list[str]:
    lines = ["<p>This page:</p>", f"<pre>{escape(content['command'])}</pre>"]
    trained = [run["train"] for run in content["runs"] if run["train"]]
    if trained:
        lines += ["<p>Training:</p>", f"<pre>{escape(chr(10).join(trained))}</pre>"]
    unknown = [run["name"] for run in content["runs"] if not run["train"]]
    if unknown:
        lines.append(f'<p class="note">How to train {escape(", ".join(unknown))} again is not recorded.</p>')
    scores = "\n".join(run["score"] for run in content["runs"])
    return [*lines, "<p>Scoring each run alone:</p>", f"<pre>{escape(scores)}</pre>"]


def _figure(figure: Figure) -> list[str]:
    lines = [f"<h2>{escape(figure.title)}</h2>"]
    lines += [f"<p>{escape(figure.rule)}</p>"] if figure.rule else []
    lines += [f'<p class="note">{escape(note)}</p>' for note in figure.notes]
    for name, shows in figure.files:
        image = f'<a href="{name}.png"><img src="{name}.png" alt="{escape(shows)}" loading="lazy"></a>'
        pdf = f'<a href="{name}.pdf">PDF</a>'
        lines.append(f"<figure>{image}<figcaption>{escape(shows)} {pdf}</figcaption></figure>")
    return lines
