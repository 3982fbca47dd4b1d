"""What pretraining leaves for pictures of its model. The book draws them, and computes with no model itself.

attention.json: a text, and where each head looks in it. embeddings.json: words, and the words nearest to them.
memory.json: what one step holds, counted tensor by tensor. samples.json: what the model wrote while it learned.

Shapes: H heads, T tokens, N words, D d_model.
"""

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hornbook.batching.packing import fill, plan_rows
from hornbook.batching.shards import Documents
from hornbook.inference.engine import Engine
from hornbook.model.attention import Attention, causal_mask, reference_attention
from hornbook.model.rotary import rotate
from hornbook.model.transformer import Transformer
from hornbook.objectives.next_token import NextToken
from hornbook.parallel.recompute import recomputed
from hornbook.recipe import Recipe
from hornbook.recipe_training import TrainingSection
from hornbook.run_directory import read_json, write_json
from hornbook.runtime import pick_dtype
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.memory import used_memory_bytes
from hornbook.training.metrics import read_metrics
from hornbook.training.microbatch import is_out_of_memory
from hornbook.training.optimizers import build_optimizer
from hornbook.training.trainer import Evaluator

_DOCUMENTS_LOOKED_AT = 1000
_TEXT_TOKENS = 26
_SENTENCES = 2
_WORD = re.compile(rb" [A-Za-z]{3,}")
_WORDS_SHOWN, _MOST_WORDS, _FREQUENT_WORDS_SKIPPED, _LEAST_COUNT = 8, 1000, 12, 3
_NEIGHBOURS, _NEIGHBOURS_IN_TABLE = 6, 3
_SAMPLE_TOKENS = 48


def leave_pictures(
    folder: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Documents,
    section: TrainingSection,
    rows_at_once: int,
) -> None:
    """Write attention.json, embeddings.json and memory.json into the stage's folder.

    `documents` are held-out ones; `rows_at_once` is what training came to. Without a text of some sentences, or with
    too few frequent words, or where the step to count in does not fit in memory, that file is left out. A model that
    several processes hold together has no pictures.
    """
    if _is_spread():
        return
    model.eval()
    records = {
        "attention": attention_record(model, tokenizer, documents),
        "embeddings": embedding_record(model, tokenizer, documents),
    }
    try:
        records["memory"] = memory_record(model, documents, section, rows_at_once, tokenizer.pad_id)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    for name, record in records.items():
        if record is not None:
            write_json(folder / f"{name}.json", record)


def sample_evaluators(folder: Path, tokenizer: Tokenizer, recipe: Recipe) -> dict[str, Evaluator]:
    """An evaluator that lets the model go on with the recipe's first beginning, and keeps that in samples.json.

    It is written greedily, so that what changes from one sample to the next is the model. What is measured is the share
    of different words among those written: a model that repeats itself has few. None where the recipe has no beginning.
    """
    path = folder / "samples.json"
    prompt = next(filter(None, recipe.evaluate.sample_prompts), None)
    if prompt is None:
        return {}

    def write_sample(model: Transformer) -> dict[str, float]:
        if _is_spread():
            return {}
        with torch.autocast(model.head_weight.device.type, enabled=False):
            (ids,) = Engine(model, tokenizer).generate([tokenizer.encode(prompt)], _SAMPLE_TOKENS)
        # The step's own line is written after its evaluation. What a killed run wrote too early is written again.
        records = read_metrics(folder / "metrics.jsonl")
        step = records[-1]["step"] + 1 if records else 1
        earlier = [one for one in read_json(path)["samples"] if one["step"] < step] if path.is_file() else []
        text = tokenizer.decode(ids)
        write_json(path, {"prompt": prompt, "samples": [*earlier, {"step": step, "text": text}]})
        words = text.split()
        return {"distinct_words": len(set(words)) / len(words)} if words else {}

    return {"samples": write_sample}


@torch.no_grad()
def attention_weights(model: Transformer, ids: list[int]) -> list[Tensor]:
    """The weights (H,T,T) of each layer on one text: row t says how much token t takes from each token."""
    found: list[Tensor] = []

    def note(attention: Attention, inputs: tuple[Any, ...], output: Tensor) -> None:
        x_BTD, rotary, mask_B1TS, _ = inputs
        query, key = (
            nn.Sequential(projection, nn.Unflatten(-1, (-1, attention.head_dim)), norm or nn.Identity())
            for projection, norm in ((attention.q_proj, attention.q_norm), (attention.k_proj, attention.k_norm))
        )
        q_BHTE, k_BKTE = query(x_BTD).transpose(1, 2), key(x_BTD).transpose(1, 2)
        if rotary is not None:
            q_BHTE, k_BKTE = rotate(q_BHTE, *rotary), rotate(k_BKTE, *rotary)
        n_tokens = x_BTD.shape[1]
        if mask_B1TS is None:
            mask_B1TS = causal_mask(n_tokens, x_BTD.device)
        # With the identity in place of the values, the result is the table of weights.
        v_BKTT = torch.eye(n_tokens, device=x_BTD.device).expand(*k_BKTE.shape[:2], -1, -1)
        found.append(reference_attention(q_BHTE, k_BKTE, v_BKTT, mask_B1TS)[0].cpu())

    with ExitStack() as stack:
        for layer in model.model.layers:
            stack.callback(layer.get_submodule("self_attn").register_forward_hook(note).remove)
        model(torch.tensor([ids], device=model.head_weight.device))
    return found


def attention_record(model: Transformer, tokenizer: Tokenizer, documents: Documents) -> dict[str, Any] | None:
    """A held-out text, the habits of all heads on it, and the table of the head in which each habit is strongest."""
    ids = _text_with_repeats(tokenizer, documents)
    if ids is None:
        return None
    weights = attention_weights(model, ids)
    heads: list[dict[str, Any]] = [
        {"layer": layer, "head": head, "habits": _habits(table.numpy(), ids)}
        for layer, tables in enumerate(weights, start=1)
        for head, table in enumerate(tables, start=1)
    ]
    maps = []
    for habit in heads[0]["habits"]:
        best = max(heads, key=lambda head: head["habits"][habit])
        table = weights[best["layer"] - 1][best["head"] - 1]
        seen = [[round(weight, 3) for weight in row[: t + 1]] for t, row in enumerate(table.tolist())]
        maps.append({"habit": habit, "layer": best["layer"], "head": best["head"], "weights": seen})
    return {"tokens": [tokenizer.decode([token]) for token in ids], "heads": heads, "maps": maps}


def _habits(weights: np.ndarray, ids: list[int]) -> dict[str, float]:
    """How much of its attention a head gives, on average, to the token before; and, at tokens that the text has had
    already, to those that came after them then (Olsson et al., arXiv 2209.11895), and to the same ones themselves."""
    places = range(len(ids))
    earlier = {t: [s for s in range(t) if ids[s] == ids[t]] for t in places}
    repeated = [t for t in places if earlier[t]]
    return {
        "the token before": round(float(np.mean([weights[t, t - 1] for t in places[1:]])), 4),
        "what came after it before": round(
            float(np.mean([sum(weights[t, s + 1] for s in earlier[t] if s + 1 < t) for t in repeated])), 4
        ),
        "the same token before": round(float(np.mean([sum(weights[t, s] for s in earlier[t]) for t in repeated])), 4),
    }


def _text_with_repeats(tokenizer: Tokenizer, documents: Documents) -> list[int] | None:
    """The first tokens of the document that begins with some sentences and repeats most; None where none does."""
    best, most = None, 0
    for number in range(min(len(documents), _DOCUMENTS_LOOKED_AT)):
        ids = documents.tokens(number)[:_TEXT_TOKENS].tolist()
        n_sentences = len(re.findall(r"\w\. ", tokenizer.decode(ids)))
        n_repeats = len(ids) - len(set(ids))
        if n_sentences >= _SENTENCES and n_repeats > most:
            best, most = ids, n_repeats
    return best


def embedding_record(model: Transformer, tokenizer: Tokenizer, documents: Documents) -> dict[str, Any] | None:
    """For some words, frequent and less frequent ones, those whose rows of the embedding point most nearly the same
    way; and the cosines of all pairs among them."""
    words = _frequent_words(tokenizer, documents)
    if len(words) < 2 * _FREQUENT_WORDS_SKIPPED:
        return None
    rows_ND = model.model.embed_tokens.weight.detach()[words].float().cpu()
    unit_ND = rows_ND / rows_ND.norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosines_NN = (unit_ND @ unit_ND.T).numpy()
    spelled = [tokenizer.decode([word]).strip() for word in words]
    ranks = np.geomspace(_FREQUENT_WORDS_SKIPPED, len(words) - 1, _WORDS_SHOWN).astype(int).tolist()
    chosen: list[int] = []
    neighbours = []
    for rank in ranks:
        if rank in chosen:
            continue
        nearest = [n for n in np.argsort(-cosines_NN[rank], kind="stable").tolist() if n != rank][:_NEIGHBOURS]
        near = [{"word": spelled[n], "cosine": round(float(cosines_NN[rank, n]), 3)} for n in nearest]
        neighbours.append({"word": spelled[rank], "neighbours": near})
        chosen += [n for n in (rank, *nearest[:_NEIGHBOURS_IN_TABLE]) if n not in chosen]
    table = [[round(float(cosine), 2) for cosine in row] for row in cosines_NN[np.ix_(chosen, chosen)]]
    return {"of_words": len(words), "neighbours": neighbours, "words": [spelled[n] for n in chosen], "cosines": table}


def _frequent_words(tokenizer: Tokenizer, documents: Documents) -> list[int]:
    """The tokens that are whole words, most frequent first."""
    texts = [documents.tokens(number) for number in range(min(len(documents), _DOCUMENTS_LOOKED_AT))]
    counts = np.bincount(np.concatenate(texts).astype(np.int64), minlength=tokenizer.vocab_size)
    often = [id for id in np.argsort(-counts, kind="stable").tolist() if counts[id] >= _LEAST_COUNT]
    return [id for id in often if _WORD.fullmatch(tokenizer.token_bytes(id))][:_MOST_WORDS]


def memory_record(
    model: Transformer, documents: Documents, section: TrainingSection, rows_at_once: int, pad_id: int
) -> dict[str, Any]:
    """The bytes of a step's tensors by part, without compiling, as the plan counts them; and on what they were taken.

    What the loss needs in passing is in no tensor that is kept, so it is not counted. process_bytes is what the program
    holds when training is over, with all that belongs to it; None where that is not known.
    """
    device = model.head_weight.device
    row_tokens = section.row_tokens or model.config.max_seq_len
    rows = plan_rows(documents.lengths, row_tokens)[:rows_at_once]
    batch = fill(rows, documents, row_tokens, pad_id).to(device)
    parameters = list(model.parameters())
    is_cast = pick_dtype(section.precision, device) == torch.bfloat16
    matrix_sizes = {parameter.numel() for parameter in parameters if parameter.ndim == 2}
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[str, dict[int, int]] = {"activations": {}, "cast_weights": {}}
    held = []  # else an address could be used again within the step

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        is_weight = is_cast and tensor.dtype == torch.bfloat16 and tensor.ndim == 2 and tensor.numel() in matrix_sizes
        if storage.data_ptr() not in own:
            kept["cast_weights" if is_weight else "activations"][storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    with (
        recomputed(model.model.layers, section.recompute),
        torch.autocast(device.type, torch.bfloat16, enabled=is_cast),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        loss, _ = NextToken().loss_sum(model, batch)
    held.clear()
    gradients = torch.autograd.grad(loss, [parameter for parameter in parameters if parameter.requires_grad])
    state = build_optimizer(model, section).state
    return {
        "rows": len(rows),
        "precision": "bfloat16" if is_cast else "float32",
        "device": device.type,
        "bytes": {
            "weights": sum(parameter.nbytes for parameter in parameters),
            "gradients": sum(gradient.nbytes for gradient in gradients),
            "optimizer": sum(t.nbytes for tensors in state.values() for t in tensors.values() if t.ndim),
            **{part: sum(storages.values()) for part, storages in kept.items()},
        },
        "process_bytes": used_memory_bytes(device),
    }


def _is_spread() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
