"""The HTML page of a report, without scripts; its pictures lie beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

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
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding: .4rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td.words { text-align: left; }
td.best { font-weight: 700; }
pre { background: var(--code); padding: .6rem .8rem; border-radius: 6px; white-space: pre-wrap;
      overflow-wrap: anywhere; font-size: .85rem; }
figure { margin: 1rem 0; } figcaption { color: var(--faint); font-size: .9rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
.note { color: var(--faint); }
"""
MOST_COLUMNS = 20
"""Largest number of videos in a table; of more videos only the mean is given."""
_BEST = ' class="best"'


def render_page(table: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """The page of a report, of the content of ``report.json`` and the figures in their order."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>rvos-edge report</title><style>{_STYLE}</style></head><body>",
        "<h1>Report</h1>",
        f"<p>{escape(_data(table['data']))}</p>",
        "<h2>Runs</h2>",
        *_tables(table),
        "<h2>Commands</h2>",
        *_commands(table),
    ]
    for figure in figures:
        parts += _figure(figure)
    return "\n".join([*parts, "</body></html>", ""])


def _data(data: Mapping[str, Any]) -> str:
    videos = ", ".join(data["videos"][:MOST_COLUMNS]) + (", ..." if len(data["videos"]) > MOST_COLUMNS else "")
    scored = "Every frame is scored" if data["every"] == 1 else f"One frame in {data['every']} is scored"
    return (
        f"{len(data['videos'])} videos of {data['root']} ({videos}). {scored}, {data['frames']} in "
        "all, at its own size, for every expression on its own. J and F of a video are means over its frames and "
        "expressions, those of a run means over its videos."
    )


def _tables(table: Mapping[str, Any]) -> list[str]:
    runs, videos = table["runs"], list(table["data"]["videos"])
    rows = [(run["name"], run["network"], run["trained"], run["j"], run["f"]) for run in runs]
    lines = _table(("run", "network", "trained", "J", "F"), rows)
    if len(videos) > MOST_COLUMNS:
        return [*lines, '<p class="note">The results of each video are in report.json.</p>']
    for key, caption in (("j", "J, region similarity, in %"), ("f", "F, boundary accuracy, in %")):
        shares = [(run["name"], *(run["videos"][video][key] for video in videos), run[key]) for run in runs]
        lines += _table(("run", *videos, "mean"), shares, caption)
    return lines


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> list[str]:
    """Texts stand left, shares right and in percent, the best of a column bold where there are several rows."""
    lines = [f'<div class="scroll"><table><caption>{escape(caption)}</caption><tr>']
    lines += [f"<th>{escape(head)}</th>" for head in heads]
    for row in rows:
        lines.append("</tr><tr>")
        for column, value in enumerate(row):
            if isinstance(value, str):
                lines.append(f'<td class="words">{escape(value)}</td>')
            else:
                best = len(rows) > 1 and _percent(value) == _percent(max(other[column] for other in rows))
                lines.append(f"<td{_BEST if best else ''}>{_percent(value)}</td>")
    return [*lines, "</tr></table></div>"]


def _commands(table: Mapping[str, Any]) -> list[str]:
    lines = ["<p>This page:</p>", f"<pre>{escape(table['command'])}</pre>"]
    trained = [run["train"] for run in table["runs"] if run["train"]]
    if trained:
        lines += ["<p>Training:</p>", f"<pre>{escape(chr(10).join(trained))}</pre>"]
    unknown = [run["name"] for run in table["runs"] if not run["train"]]
    if unknown:
        lines.append(f'<p class="note">How {escape(", ".join(unknown))} was trained is not recorded.</p>')
    scores = "\n".join(run["score"] for run in table["runs"])
    return [*lines, "<p>Scoring each run alone:</p>", f"<pre>{escape(scores)}</pre>"]


def _figure(figure: Figure) -> list[str]:
    lines = [f"<h2>{escape(figure.title)}</h2>"]
    lines += [f"<p>{escape(figure.rule)}</p>"] if figure.rule else []
    lines += [f'<p class="note">{escape(note)}</p>' for note in figure.notes]
    for file, shows in figure.files:
        image = f'<a href="{escape(file)}"><img src="{escape(file)}" alt="{escape(shows)}" loading="lazy"></a>'
        lines.append(f"<figure>{image}<figcaption>{escape(shows)}</figcaption></figure>")
    return lines


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
