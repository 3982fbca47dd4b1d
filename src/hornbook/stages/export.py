"""Export: the last model of a run, in a folder that other programs load as it is, with where it comes from.

hf is the layout that training leaves, and is copied. gguf is one file for llama.cpp, with the tokenizer in it;
`config.json` goes along, because transformers, which reads such files too, does not take all of a model's shape
from them.
"""

import shutil
from pathlib import Path
from typing import Any, Literal

from hornbook.errors import UserError
from hornbook.inference.load import find_model
from hornbook.model.gguf_file import save_gguf
from hornbook.model.gguf_tokenizer import read_gguf_tokenizer
from hornbook.model.huggingface import CONFIG_FILE, load_pretrained
from hornbook.model.origin import ORIGIN_FILE
from hornbook.run_directory import RunDirectory, atomic_writer, check_writable, open_run, read_json, write_json
from hornbook.stages.context import StageContext

LINEAGE_FILE = "lineage.json"
GGUF_FILE = "model.gguf"
STAGES_WITH_MODELS = ("reinforce", "preference", "finetune", "pretrain", "classify")  # the last that talks first

Format = Literal["hf", "gguf"]


def run(context: StageContext) -> dict[str, Any]:
    """Export into the stage's own folder, in the recipe's format."""
    return _export(context.run, context.stage.path, context.recipe.export.format)


def export_run(run: Path, to: Path, format: Format) -> None:
    """`hornbook export`: write the run's last model to `to`.

    Raises UserError where the run has no model, where `to` holds something already, or where the format has no
    place for a part of the model.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: is not empty. Name a new folder, or empty this one first.")
    check_writable("--to", to, as_folder=True)
    facts = _export(open_run(run), to, format)
    print(f"{to}: {facts['files']} files ({format}), the model of the stage {facts['stage']}")


def _export(run: RunDirectory, to: Path, format: Format) -> dict[str, Any]:
    model = find_model(run.path, STAGES_WITH_MODELS)
    to.mkdir(parents=True, exist_ok=True)
    if format == "gguf":
        save_gguf(load_pretrained(model), read_gguf_tokenizer(model), to / GGUF_FILE, run.path.name)
        copied = [CONFIG_FILE]
    else:
        copied = sorted(path.name for path in model.iterdir() if path.is_file())
    for name in copied:
        with open(model / name, "rb") as source, atomic_writer(to / name) as target:
            shutil.copyfileobj(source, target)
    write_json(to / LINEAGE_FILE, lineage(run))
    written = {*copied, LINEAGE_FILE} | ({GGUF_FILE} if format == "gguf" else set())
    return {"stage": model.parent.name, "files": len(written)}


def lineage(run: RunDirectory) -> dict[str, Any]:
    """For each finished stage of a run: its fingerprint, the checksums of the files that it made, and its origin.

    A stage that went on from a model of somebody else has one: which model, and that model's own lineage.
    """
    return {
        stage: {"fingerprint": record["fingerprint"], "files": record["files"], **_origin(run.path / stage)}
        for stage, record in run.finished_stages().items()
        if stage != "export"
    }


def _origin(stage: Path) -> dict[str, Any]:
    return {"init_from": read_json(stage / ORIGIN_FILE)} if (stage / ORIGIN_FILE).is_file() else {}
