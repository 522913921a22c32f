"""The page's building blocks: every text is escaped, pictures are inside, nothing is fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { --ink: #1d2733; --muted: #5c6773; --line: #d4dae1; --paper: #ffffff; --wash: #f4f6f8; --accent: #0072b2; --warn: #d55e00; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 2.5rem 4rem; background: var(--paper); min-height: 100vh; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: 1rem; border-top: 2px solid var(--ink); }
h3 { font-size: 1rem; margin: 1.7rem 0 .4rem; }
p, ul { margin: .4rem 0 .8rem; } li { margin: .15rem 0; }
.use { color: var(--muted); margin: 0 0 1.2rem; }
.first { border-left: 5px solid var(--accent); background: var(--wash); padding: .8rem 1.1rem; margin: .8rem 0 1rem; font-size: 1.05rem; }
.first.warn { border-color: var(--warn); }
.first p { margin: .2rem 0; }
.rest { color: var(--ink); }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--muted); border-bottom-color: var(--ink); }
td.number, th.number { text-align: right; white-space: nowrap; }
td:first-child { min-width: 7rem; }
tr.strong td { font-weight: 600; }
figure { margin: .6rem 0 1.2rem; } figcaption { color: var(--muted); font-size: .87rem; max-width: 48rem; }
figure svg, figure img { max-width: 100%; height: auto; }
.row { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.wide { overflow-x: auto; }
footer { margin-top: 3rem; color: var(--muted); font-size: .85rem; border-top: 1px solid var(--line); padding-top: .8rem; }
@media print { body { background: none; } main { padding: 0; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""


def page(title: str, use: str, parts: Iterable[str], footer: str) -> str:
    """A whole document.

    Args:
        title: heading.
        use: the line below it.
        parts: its content, HTML.
        footer: text.
    """
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        f'<p class="use">{escape(use)}</p>\n' + "\n".join(parts) + f"\n<footer>{escape(footer)}</footer>\n</main>\n</body>\n</html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def listed(texts: Iterable[str]) -> str:
    """A list of plain texts; "" for none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def first_lines(texts: Sequence[str], *, warning: bool) -> str:
    """What a reader must see before anything else: the first text large, the others below it."""
    kind = "first warn" if warning else "first"
    return f'<div class="{kind}"><p>{escape(texts[0])}</p></div>{listed(texts[1:])}'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = (), strong: Sequence[int] = ()) -> str:
    """A table.

    Args:
        header: of the columns.
        rows: cells, shown as text.
        numbers: which columns are numbers, aligned to the right.
        strong: which rows stand out.
    """

    def cells(tag: str, texts: Sequence[object]) -> str:
        return "".join(f"<{tag}{_class('number', place in numbers)}>{escape(str(text))}</{tag}>" for place, text in enumerate(texts))

    body = "".join(f"<tr{_class('strong', place in strong)}>{cells('td', row)}</tr>" for place, row in enumerate(rows))
    return f'<div class="wide"><table><thead><tr>{cells("th", header)}</tr></thead><tbody>{body}</tbody></table></div>'


def _class(name: str, holds: bool) -> str:
    return f' class="{name}"' if holds else ""


def figure(content: str, caption: str) -> str:
    """A picture (HTML) with its caption."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def image(png: bytes, description: str) -> str:
    """A PNG inside the page."""
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'


def side_by_side(parts: Iterable[str]) -> str:
    """Parts in a row where the page is wide enough."""
    return f'<div class="row">{"".join(parts)}</div>'
