"""Where a model comes from that training goes on with: a folder in Hugging Face's layout, on this disk.

Its weights' checksums are what identifies it, and go into the lineage of everything that is made of it. Imports no
torch, so that a pipeline can tell whether anything changed.
"""

from pathlib import Path
from typing import Any

from hornbook.model.huggingface_config import CONFIG_FILE, read_config
from hornbook.run_directory import read_json, sha256_file

ORIGIN_FILE = "init_from.json"
"""Where a stage leaves what `origin_of` says of the model that it went on from."""


def origin_of(folder: Path) -> dict[str, Any]:
    """The folder, the model's architecture, the SHA-256 of each of its files, and its own lineage where it has one.

    Raises `UserError` where there is no model, or none that we can read.
    """
    config = read_config(folder)
    files = [path for pattern in ("*.safetensors", "tokenizer.json") for path in sorted(folder.glob(pattern))]
    origin = {
        "folder": str(folder),
        "architecture": config.architecture,
        "files": {path.name: sha256_file(path) for path in [folder / CONFIG_FILE, *files]},
    }
    lineage = folder / "lineage.json"
    return origin | ({"lineage": read_json(lineage)} if lineage.is_file() else {})
