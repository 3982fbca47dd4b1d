import json
from pathlib import Path

import pytest
import torch

from hornbook.errors import UserError
from hornbook.model.weight_files import INDEX_FILE, WEIGHTS_FILE, read_weights, weight_files, write_weights

TENSORS = {f"layer.{number}": torch.full((10, 10), float(number)) for number in range(5)}  # 400 bytes each


def test_what_fits_is_one_file_without_an_index(tmp_path: Path):
    write_weights(tmp_path, TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS_FILE]


def test_what_does_not_fit_is_spread_over_files_that_the_index_names(tmp_path: Path):
    write_weights(tmp_path, TENSORS, max_shard_bytes=800)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    assert index["metadata"]["total_size"] == 2000
    assert list(index["weight_map"]) == list(TENSORS)
    assert [path.name for path in weight_files(tmp_path)] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    torch.testing.assert_close(read_weights(tmp_path), TENSORS, rtol=0, atol=0)


def test_a_tensor_that_is_larger_than_a_file_may_be_gets_one_of_its_own(tmp_path: Path):
    write_weights(tmp_path, TENSORS, max_shard_bytes=100)
    assert len(weight_files(tmp_path)) == len(TENSORS)


@pytest.mark.parametrize(("first", "second"), [(800, 4000), (4000, 800), (400, 800)])
def test_a_model_saved_over_another_leaves_nothing_of_it(first: int, second: int, tmp_path: Path):
    write_weights(tmp_path, TENSORS, max_shard_bytes=first)
    write_weights(tmp_path, {name: -tensor for name, tensor in TENSORS.items()}, max_shard_bytes=second)
    assert read_weights(tmp_path)["layer.3"][0, 0] == -3
    assert set(tmp_path.glob("*.safetensors")) == set(weight_files(tmp_path))
    assert (tmp_path / INDEX_FILE).exists() == (second < 2000)


def test_a_missing_shard_is_named(tmp_path: Path):
    write_weights(tmp_path, TENSORS, max_shard_bytes=800)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00003.safetensors: there is no such file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": {"a": "../../elsewhere.safetensors"}}, {"weight_map": {"a": 3}}])
def test_an_index_that_names_no_files_of_its_folder_is_refused(index: object, tmp_path: Path):
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(UserError, match="names no files of its own folder"):
        read_weights(tmp_path)


def test_a_pickle_is_never_read(tmp_path: Path):
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="Hornbook reads safetensors only"):
        read_weights(tmp_path)
