"""Export: the last model of a run, in a folder that other programs load as it is, with where it comes from."""

import shutil
from pathlib import Path
from typing import Any

from hornbook.errors import UserError
from hornbook.inference.load import find_model
from hornbook.run_directory import RunDirectory, atomic_writer, open_run, write_json
from hornbook.stages.context import StageContext

LINEAGE_FILE = "lineage.json"
STAGES_WITH_MODELS = ("finetune", "pretrain")  # the last first


def run(context: StageContext) -> dict[str, Any]:
    """Export into the stage's own folder."""
    return _export(context.run, context.stage.path)


def export_run(run: Path, to: Path, format: str) -> None:
    """`hornbook export`: write the run's last model to `to`.

    Raises UserError where the run has no model, or where `to` holds something already.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: is not empty. Name a new folder, or empty this one first.")
    facts = _export(open_run(run), to)
    print(f"{to}: {facts['files']} files ({format}), the model of the stage {facts['stage']}")


def _export(run: RunDirectory, to: Path) -> dict[str, Any]:
    model = find_model(run.path, STAGES_WITH_MODELS)
    to.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in model.iterdir() if path.is_file())
    for name in names:
        with open(model / name, "rb") as source, atomic_writer(to / name) as target:
            shutil.copyfileobj(source, target)
    write_json(to / LINEAGE_FILE, lineage(run))
    return {"stage": model.parent.name, "files": len(names) + 1}


def lineage(run: RunDirectory) -> dict[str, Any]:
    """For each finished stage of a run: its fingerprint, and the checksums of the files that it made."""
    records = {path.name: run.stage(path.name).record() for path in sorted(run.path.iterdir()) if path.is_dir()}
    return {
        stage: {"fingerprint": record["fingerprint"], "files": record["files"]}
        for stage, record in records.items()
        if record is not None and stage != "export"
    }
