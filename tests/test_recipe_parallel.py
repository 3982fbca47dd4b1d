"""A layout that does not fit is refused with everything that is wrong, at once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hornbook.errors import UserError
from hornbook.parallel.mesh import open_mesh
from hornbook.parallel.processes import Processes
from hornbook.recipe import load_recipe
from hornbook.recipe_parallel import Cuttable, ParallelSection

_FITTING = Cuttable("pretrain", 4, 8, 4, 64, 512, 0, 128, 16, has_adapters=False)


def _lines(write_recipe: Callable[..., Path], section: str) -> list[str]:
    path = write_recipe(f"[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\n[parallel]\n{section}")
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    return str(caught.value).splitlines()


def test_every_mismatch_is_told_at_once(write_recipe: Callable[..., Path]) -> None:
    lines = _lines(write_recipe, "shard = 5\ntensor = 3\npipeline = 7\ncontext = 2\n")

    text = "\n".join(lines)
    for expected in (
        "model.n_heads: must be a multiple of parallel.tensor, which is 3, but is 4",
        "model.n_kv_heads: must be a multiple of parallel.tensor, which is 3, but is 4",
        "tokenizer.vocab_size: must be a multiple of parallel.tensor, which is 3, but is 4096",
        "pretrain.row_tokens: must be a multiple of parallel.context x parallel.tensor, which is 6, but is 256",
        "cuts the model into 7 parts, more than the 4 layers",
        "must divide the 4 rows of a step of pretrain, but come to 5",
        "parallel.context: must be 1 where parallel.pipeline is more than 1, but is 2",
    ):
        assert expected in text
    assert len(lines) == 7


def test_a_pipeline_needs_a_row_for_each_process(write_recipe: Callable[..., Path]) -> None:
    lines = _lines(write_recipe, "shard = 2\npipeline = 4\n")
    assert len(lines) == 1
    assert "must have a row for each of the 4 processes of parallel.pipeline, but has 2" in lines[0]


def test_shard_takes_what_is_left() -> None:
    section = ParallelSection(tensor=2, pipeline=2)
    assert section.processes is None
    assert section.resolved(16).shard == 4
    assert section.resolved(16).processes == 16
    assert ParallelSection(shard=2, tensor=2).resolved(16).shard == 2


def test_interleaved_stages_are_twice_the_processes() -> None:
    assert ParallelSection(pipeline=4, schedule="interleaved").stages == 8
    assert ParallelSection(pipeline=4).stages == 4
    assert ParallelSection(schedule="interleaved").stages == 1


def test_another_number_of_processes_is_refused_together_with_what_does_not_fit_the_model() -> None:
    section = ParallelSection(shard=2, tensor=16, pipeline=2)
    with pytest.raises(UserError) as caught:
        open_mesh(section, torch.device("cpu"), Processes(), _FITTING)

    text = str(caught.value)
    assert "parallel: needs 64 processes (shard 2 x tensor 16 x pipeline 2), but 1 was started" in text
    assert "torchrun --nproc-per-node 64" in text
    assert "model.n_heads: must be a multiple of parallel.tensor, which is 16, but is 8" in text


def test_one_process_needs_no_section() -> None:
    mesh = open_mesh(ParallelSection(), torch.device("cpu"), Processes(), _FITTING)
    assert (mesh.n_data, mesh.data_rank, mesh.is_first) == (1, 0, True)
    assert mesh.tell({"a": 1}) == {"a": 1}
    assert mesh.largest(3) == 3
