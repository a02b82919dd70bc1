"""A report as one HTML file for phone, wide screen, dark mode and print: no script, nothing fetched."""

import base64
import itertools
import re
from html import escape

from scripts.report_blocks import Block, Listing, Paragraph, Report, Sample, Table
from scripts.report_plots import Plot

VALUE = r"[+−-]?\d[\d,.e-]*( ?(%|s|min))?"
NUMBER = re.compile(rf"(< )?{VALUE}((\sto\s| → ){VALUE}|/\d+)?( \[.*\]| \(.*\))?|n/a")

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --panel: #f6f8fa; --ink: #1f2328; --soft: #59636e; --line: #d0d7de;
  --baseline: #0072b2; --mul: #d55e00; --good: #1a7f37; --bad: #b3261e; --warn: #fff8c5; --warn-line: #d4a72c;
}
@media screen and (prefers-color-scheme: dark) { :root {
  --page: #0d1117; --panel: #161b22; --ink: #e6edf3; --soft: #9198a1; --line: #3d444d;
  --baseline: #56b4e9; --mul: #e69f00; --good: #3fb950; --bad: #ff7b72; --warn: #2e2a12; --warn-line: #9e6a03;
} }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 68rem; padding: 1rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  overflow-wrap: break-word;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p { max-width: 46rem; margin: .75rem 0; }
.note { color: var(--soft); font-size: .92rem; border-left: 3px solid var(--line); padding-left: .75rem; }
.warning, .verdict { max-width: none; border: 1px solid; border-radius: 6px; padding: .7rem .9rem; }
.warning { background: var(--warn); border-color: var(--warn-line); font-weight: 600; }
.verdict { background: var(--panel); border-color: var(--line); border-left: 5px solid var(--baseline); }
.table { margin: 1rem 0; min-width: 0; }
.scroll { overflow: auto; max-height: 32rem; max-width: 100%; border: 1px solid var(--line); border-radius: 6px; }
.scroll:focus-visible { outline: 2px solid var(--baseline); }
.title { font-weight: 600; margin: 0 0 .35rem; }
.under { color: var(--soft); font-size: .87rem; margin: .35rem 0 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { background: var(--panel); position: sticky; top: 0; white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
tbody th { font-weight: 500; min-width: 8rem; }
td { max-width: 24rem; }
.number { text-align: right; white-space: nowrap; }
tr.marked > * { color: var(--bad); font-weight: 600; }
.beside { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); gap: 0 1.5rem; }
figure { margin: 0 0 1rem; min-width: 0; border: 1px solid var(--line); border-radius: 6px; padding: .75rem; }
@media screen and (prefers-color-scheme: dark) { figure { background: var(--panel); } }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .87rem; margin-top: .35rem; }
.sample { border: 1px solid var(--line); border-radius: 6px; padding: .75rem; margin: 1rem 0; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: .75rem; }
.sides > div { min-width: 0; border-top: 3px solid var(--baseline); margin-top: .75rem; padding-top: .35rem; }
.sides > div + div { border-color: var(--mul); }
.right { color: var(--good); }
.wrong { color: var(--bad); }
pre {
  background: var(--panel); border-radius: 6px; padding: .6rem; margin: .35rem 0; font-size: .84rem;
  line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere;
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace;
}
details { margin: .5rem 0; }
summary { cursor: pointer; }
@media (max-width: 32rem) {
  th, td { padding: .35rem .5rem; }
  table { font-size: .87rem; }
  tbody th { min-width: 6rem; }
  .number { white-space: normal; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { max-height: none; overflow: visible; }
  .beside { grid-template-columns: 1fr 1fr; }
  thead th { position: static; white-space: normal; }
  table { font-size: 8.5pt; }
  th, td { padding: .25rem .4rem; }
  tbody th { min-width: 4rem; }
  .number { white-space: normal; }
  figure, tr, .verdict, .sample { break-inside: avoid; }
  h2, .title { break-after: avoid; }
}
"""


def to_html(report: Report) -> str:
    """The whole report as one self-contained HTML document; every text in it is escaped."""
    parts = [f"<h1>{escape(report.title)}</h1>", *map(_html, report.head)]
    for section in report.sections:
        parts.append(f"<section>\n<h2>{escape(section.title)}</h2>\n{_blocks(section.blocks)}\n</section>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _blocks(blocks: list[Block]) -> str:
    """The blocks in order; neighbouring plots and small tables stand side by side where there is room."""
    parts = []
    for small, group in itertools.groupby(blocks, key=lambda b: isinstance(b, Plot | Table) and not _is_wide(b)):
        inner = "\n".join(map(_html, group))
        parts.append(f'<div class="beside">{inner}</div>' if small else inner)
    return "\n".join(parts)


def _is_wide(block: Block) -> bool:
    return isinstance(block, Table) and block.wide


def _html(block: Block) -> str:
    match block:
        case Paragraph(text, kind):
            return f'<p class="{kind}">{escape(text)}</p>'
        case Table():
            return _table(block)
        case Plot(title, caption, light, dark):
            return (
                f'<figure><p class="title">{escape(title)}</p><picture>'
                f'<source media="screen and (prefers-color-scheme: dark)" srcset="{_data_uri(dark)}">'
                f'<img src="{_data_uri(light)}" alt="{escape(title)}"></picture>'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        case Sample():
            return _sample(block)
        case Listing(title, text):
            return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def _table(table: Table) -> str:
    # A column of numbers is aligned right, heading included; the first column names the rows.
    numeric = [all(NUMBER.fullmatch(cell) for cell in column) for column in zip(*table.rows, strict=True)]
    numeric = [False, *numeric[1:]] if table.rows else [False] * len(table.header)
    classes = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(f'<th scope="col"{c}>{escape(cell)}</th>' for c, cell in zip(classes, table.header, strict=True))
    rows = []
    for number, row in enumerate(table.rows):
        cells = [f'<th scope="row">{escape(row[0])}</th>']
        cells += [f"<td{c}>{escape(cell)}</td>" for c, cell in zip(classes[1:], row[1:], strict=True)]
        mark = ' class="marked"' if number in table.marked else ""
        rows.append(f"<tr{mark}>{''.join(cells)}</tr>")
    note = f'<p class="under">{escape(table.note)}</p>' if table.note else ""
    # tabindex lets a keyboard scroll the box.
    return (
        f'<div class="table"><p class="title">{escape(table.title)}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(rows)}</tbody></table></div>{note}</div>"
    )


def _sample(sample: Sample) -> str:
    sides = []
    for condition, response in sample.responses.items():
        mark = "right" if sample.correct[condition] else "wrong"
        head = f'<p class="title">{escape(condition)}: <span class="{mark}">{mark}</span></p>'
        sides.append(f"<div>{head}<pre>{escape(response)}</pre></div>")
    return (
        f'<div class="sample"><p class="title">{escape(sample.title)}</p><pre>{escape(sample.question)}</pre>'
        f'<p class="under">gold answer: {escape(sample.gold)}</p><div class="sides">{"".join(sides)}</div></div>'
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
