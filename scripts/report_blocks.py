"""What a report is made of, whatever it is rendered to; and its rendering as Markdown."""

from dataclasses import dataclass, field

from scripts.report_plots import Plot


@dataclass
class Paragraph:
    """Plain text. `kind`: "text", "note", "warning" (synthetic data, no verdict) or "verdict"."""

    text: str
    kind: str = "text"


@dataclass
class Table:
    """Rows of cells that are already text; `marked` are the numbers of the rows that need the reader's eye."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    marked: set[int] = field(default_factory=set)
    wide: bool = False  # long cells: gets the whole width, not a place beside another table


@dataclass
class Sample:
    """One benchmark item with the responses of both conditions."""

    title: str
    question: str
    gold: str
    responses: dict[str, str]
    correct: dict[str, bool]


@dataclass
class Listing:
    """A block of text shown as it is, folded away behind its title."""

    title: str
    text: str


Block = Paragraph | Table | Plot | Sample | Listing


@dataclass
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: list[Block]


@dataclass
class Report:
    """The whole document; the head stands above the first section."""

    title: str
    head: list[Block]
    sections: list[Section]


def to_markdown(report: Report) -> str:
    """The report as Markdown without its plots, which only the HTML has."""
    parts = [f"# {report.title}", *map(_markdown, report.head)]
    for section in report.sections:
        parts += [f"## {section.title}", *map(_markdown, section.blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Paragraph(text, kind):
            return {"text": text, "note": f"*Note:* {text}"}.get(kind, f"> **{text}**")
        case Table(title, header, rows, note):
            lines = [_markdown_row(header), _markdown_row(["---"] * len(header)), *map(_markdown_row, rows)]
            return "\n".join([f"**{title}**", "", *lines]) + (f"\n\n{note}" if note else "")
        case Sample(title, question, gold, responses, correct):
            parts = [f"**{title}** (gold: {gold})", _fence(question)]
            for condition, response in responses.items():
                parts += [f"{condition}, {'right' if correct[condition] else 'wrong'}:", _fence(response)]
            return "\n\n".join(parts)
        case Listing(title, text):
            return f"**{title}**\n\n{_fence(text)}"
        case Plot(title):
            return f"*Plot, in the HTML report: {title}*"


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _fence(text: str) -> str:
    # A response may itself contain a fence; the outer one has to be longer.
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return f"{ticks}text\n{text}\n{ticks}"
