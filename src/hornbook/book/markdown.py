"""The results of a run as Markdown, for a blog, with the pictures as files."""

from collections.abc import Mapping
from pathlib import Path

from hornbook.book.figures import draw_all, run_drawings
from hornbook.book.model_figures import model_drawings
from hornbook.book.results import Block, blocks
from hornbook.book.run_facts import Run
from hornbook.run_directory import atomic_write


def write_markdown(run: Run, output: Path) -> None:
    """Write the results to `output`, and their pictures into a folder beside it."""
    drawn = draw_all(run, run_drawings(run) | model_drawings(run))
    found = blocks(run, drawn)
    folder = output.with_name(f"{output.stem}-figures")
    for block in found:
        if block["kind"] == "figure":
            atomic_write(folder / f"{block['name']}.svg", drawn[block["name"]].svg)
    text = to_markdown(run, found, folder.name, {name: drawing.alt for name, drawing in drawn.items()})
    atomic_write(output, text)


def to_markdown(run: Run, found: list[Block], figure_folder: str, alts: Mapping[str, str]) -> str:
    """The blocks as Markdown, with pictures from a folder beside it."""
    parts = [f"# {run.facts['name']}", run.facts["description"]]
    for block in found:
        match block["kind"]:
            case "heading":
                parts.append(f"## {block['text']}")
            case "paragraph":
                parts.append(block["text"])
            case "quote":
                parts.append("\n".join(f"> {line}" for line in block["text"].splitlines()))
            case "figure":
                alt = alts[block["name"]].replace("]", ")").replace("[", "(")
                parts.append(f"![{alt}]({figure_folder}/{block['name']}.svg)\n\n*{block['caption']}*")
            case "table":
                rows = [block["columns"], ["---"] * len(block["columns"]), *block["rows"]]
                table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
                parts.append(f"*{block['caption']}*\n\n{table}")
    return "\n\n".join(part for part in parts if part) + "\n"
