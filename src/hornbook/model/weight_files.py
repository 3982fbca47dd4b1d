"""Named tensors in a folder as Hugging Face has them: one safetensors file, or several and an index of them.

safetensors alone: the older `pytorch_model.bin` is a pickle, and reading it would run whatever its maker put
into it.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from hornbook.errors import UserError
from hornbook.run_directory import atomic_write, read_json, write_json

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_SHARD_BYTES = 5_000_000_000
"""As transformers long had it: files that any disk takes and that load one after the other."""


def write_weights(directory: Path, tensors: Mapping[str, Tensor], max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write tensors of the CPU into as few files of at most `max_shard_bytes` as their order allows.

    A tensor that is larger by itself gets a file of its own. Files of an earlier, differently divided model
    that lay there are removed, so that nobody reads them.
    """
    shards = _shards(tensors, max_shard_bytes)
    if len(shards) == 1:
        names = [WEIGHTS_FILE]
    else:
        names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        atomic_write(directory / name, save(shard, metadata={"format": "pt"}))
    # Gone before the index comes, so that a reader at any moment finds one whole model or misses a file.
    for path in directory.glob("model*.safetensors"):
        if path.name not in names:
            path.unlink()
    if len(shards) == 1:
        (directory / INDEX_FILE).unlink(missing_ok=True)
    else:
        place_of = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(map(_bytes, tensors.values()))
        write_json(directory / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": place_of})


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a folder. Raises UserError where a file is missing or damaged."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(directory):
        try:
            tensors |= load_file(path)
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file; Hornbook reads safetensors only") from None
        except SafetensorError as error:
            raise UserError(f"{path}: this is not a whole safetensors file: {error}") from None
        except OSError as error:
            raise UserError(f"{path}: this is not a file that can be read ({error})") from None
    return tensors


def weight_files(directory: Path) -> list[Path]:
    """The files that make up a model: the one, where it is there, and else those that the index names."""
    index = directory / INDEX_FILE
    if (directory / WEIGHTS_FILE).exists() or not index.exists():
        return [directory / WEIGHTS_FILE]
    found = read_json(index)
    places = found.get("weight_map") if isinstance(found, dict) else None
    names = set(places.values()) if isinstance(places, dict) else set()
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise UserError(f"{index}: names no files of its own folder, as an index of weights must")
    return [directory / name for name in sorted(names)]


def _shards(tensors: Mapping[str, Tensor], max_shard_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    filled_bytes = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled_bytes + _bytes(tensor) > max_shard_bytes:
            shards.append({})
            filled_bytes = 0
        shards[-1][name] = tensor
        filled_bytes += _bytes(tensor)
    return shards


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
