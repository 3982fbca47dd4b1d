"""Building the book: what the chapters ask for is gathered in one folder, and Typst sets it.

The chapters are Typst files in this package. They ask for listings, numbers of the run, worked examples and pictures by
name; all of these are computed here and now. So nothing in the book can be older than the code and the run, and what is
gone stops the build with chapter and line. torch is not needed, and not imported.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from hornbook import __version__
from hornbook.book.figures import draw_all, run_drawings
from hornbook.book.formulas import FORMULAS
from hornbook.book.glyphs import settable
from hornbook.book.listings import SOURCE, take_all
from hornbook.book.markdown import write_markdown
from hornbook.book.model_figures import model_drawings
from hornbook.book.reference import REFERENCE_RUN
from hornbook.book.results import blocks, headline_rows, score_rows
from hornbook.book.run_facts import Run, read_run
from hornbook.book.worked.examples import all_examples
from hornbook.errors import UserError
from hornbook.model.config import config_from_recipe
from hornbook.planning.flops import flops_per_token, parameters_by_part
from hornbook.planning.memory import most_rows_at_once, training_memory
from hornbook.recipe import load_recipe
from hornbook.run_directory import atomic_write

Paper = Literal["a4", "us-letter"]
Format = Literal["pdf", "md"]

TYPST_FILES = Path(__file__).parent / "typst"

_NEEDED = ("pretrain.validation_bits_per_byte", "pretrain.final_loss_nats", "derived.pretrain.first_loss_nats")
"""What every chapter may count on; without these only a report can be had."""

_EQUATION = re.compile(r"(?<![\\#\w])\$([^$]+)\$")
_VALUE = re.compile(r'#[wm]\("([\w.]+)"[^)]*\)')


def build_book(
    run_path: Path | None, output: Path, *, only_results: bool = False, format: Format = "pdf", paper: Paper = "a4"
) -> None:
    """Write the book of a run, or of the reference run where there is none, to `output`.

    only_results: a report of the run alone, as PDF or as Markdown with its pictures in a folder beside it.
    Raises UserError where a chapter names a listing or a number that is gone, with the place.
    """
    if format == "md" and not only_results:
        raise UserError("--format md: only the results can be had as Markdown. Add --only results.")
    run_path = run_path or REFERENCE_RUN
    run = _planned(read_run(run_path), run_path)
    if format == "md":
        write_markdown(run, output)
        return
    if not only_results and any(run.get(key) is None for key in _NEEDED):
        raise UserError(
            f"{run_path}: the book tells of a pretraining, and this run has no figures of one that is done. "
            "`--only results` works here: a report of what there is."
        )
    with tempfile.TemporaryDirectory() as folder:
        main = gather(run, Path(folder), only_results)
        atomic_write(output, typeset(main, paper))


def gather(run: Run, folder: Path, only_results: bool = False, source: Path = SOURCE) -> Path:
    """Put into `folder` all that Typst needs, and return the main file's path."""
    run = Run(settable(run.facts), run.metrics)
    shutil.copytree(TYPST_FILES, folder, dirs_exist_ok=True)
    chapters = sorted((folder / "chapters").glob("*.typ"))
    listings = take_all(chapters, source)
    drawings = run_drawings(run) | model_drawings(run)
    drawn = draw_all(run, drawings if only_results else drawings | FORMULAS)
    data: dict[str, Any] = {
        "version": __version__,
        "run": run.facts,
        "headline": headline_rows(run),
        "worked": all_examples(),
        "listings": {name: asdict(listing) for name, listing in listings.items()},
        "code": sorted(path.relative_to(source).as_posix() for path in source.rglob("*.py")),
        "figures": {name: {"alt": drawing.alt} for name, drawing in drawn.items()},
        "results": blocks(run, drawn),
        "plan_score": score_rows(run.facts["pretrain"]) if run.get("pretrain.plan_score") else [],
    }
    (folder / "data.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    (folder / "figures").mkdir()
    for name, drawing in drawn.items():
        (folder / "figures" / f"{name}.svg").write_bytes(drawing.svg)
    for chapter in chapters:
        chapter.write_text(with_spoken_equations(chapter.read_text(encoding="utf-8"), data["worked"]), encoding="utf-8")
    return folder / ("report.typ" if only_results else "book.typ")


def typeset(main: Path, paper: Paper) -> bytes:
    """The PDF of a main file, tagged to be read aloud (PDF/UA-1). Raises UserError with the place of a mistake."""
    import typst

    try:
        return typst.compile(
            str(main), root=str(main.parent), format="pdf", sys_inputs={"paper": str(paper)}, ignore_system_fonts=True,
            pdf_standards="ua-1",
        )  # fmt: skip
    except typst.TypstError as problem:
        raise UserError(f"the book cannot be set: {_place_and_reason(problem, main.parent)}") from None


def with_spoken_equations(chapter: str, worked: Mapping[str, Any]) -> str:
    """The chapter with what is read aloud given to each equation: its own source, with the numbers put in.

    Typst takes alternative text only for what is written as a function, so `$x$` becomes `#math.equation(...)`.
    """

    def spoken(equation: re.Match[str]) -> str:
        body = equation[1]
        is_block = body[0].isspace() and body[-1].isspace()
        alt = " ".join(_VALUE.sub(lambda value: _said(value[1], worked), body).split())
        alt = alt.replace("\\", "").replace('"', "")
        return f'#math.equation(block: {str(is_block).lower()}, alt: "{alt}", ${body}$)'

    parts = re.split(r"(```.*?```|`[^`\n]*`)", chapter, flags=re.DOTALL)
    return "".join(part if part.startswith("`") else _EQUATION.sub(spoken, part) for part in parts)


def _said(key: str, worked: Mapping[str, Any]) -> str:
    found: Any = worked
    for part in key.split("."):
        found = found[int(part)] if isinstance(found, list) else found.get(part, {})
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.3g}", json.dumps(found)).replace('"', "")


def _planned(run: Run, path: Path) -> Run:
    """The run with what its recipe lets one say beforehand, where that recipe can still be read."""
    recipe = load_recipe(path / "recipe.toml")
    if recipe.pretrain is None or recipe.origin is not None:
        return run
    config = config_from_recipe(recipe.model, recipe.tokenizer.vocab_size)
    section = recipe.pretrain
    parts = parameters_by_part(config)
    rows, on_cpu = most_rows_at_once(config, section), True
    counted = run.get("pictures.memory")
    if counted is not None:
        # Predicted for what was counted: the same rows, the same type, the same kind of device.
        section = section.model_copy(update={"precision": counted["precision"]})
        rows, on_cpu = counted["rows"], counted["device"] == "cpu"
    predicted = training_memory(config, section, rows, "cpu" if on_cpu else "accelerator")
    memory = {name: n_bytes / 1e6 for name, n_bytes in asdict(predicted).items()}
    run.facts["plan"] = {
        "parameters": parts,
        "n_parameters": sum(parts.values()),
        "megaflops_per_token": flops_per_token(config, section.row_tokens or config.max_seq_len).total / 1e6,
        "memory_megabytes": memory,
        "total_memory_megabytes": sum(memory.values()),
        "memory_rows": rows,
        "memory_precision": "float32" if section.precision == "float32" else "bfloat16",
        "shape": {name: value for name, value in asdict(config).items() if isinstance(value, int | float | str)},
    }
    return run


def _place_and_reason(problem: Any, folder: Path) -> str:
    """Typst's message with the chapter and line that it points to."""
    places = re.findall(rf"(?:{re.escape(folder.name)}/)?([\w-]+(?:/[\w-]+)?\.typ:\d+)", str(problem.diagnostic))
    place = next((one for one in places if "chapters/" in one), places[0] if places else "")
    return f"{place}: {problem.message}".removeprefix(": ")
