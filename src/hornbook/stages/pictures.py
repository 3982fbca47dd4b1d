"""What pretraining leaves for pictures of its model. The book draws them, and computes with no model itself.

attention.json: a text, and where each head looks in it. embeddings.json: words, and the words nearest to them.
tokens.json: how long tokens are. memory.json: what one step holds (hornbook.stages.step_memory). samples.json: what the
model wrote while it learned.

Shapes: B rows, H heads, K kv heads, T tokens, E head_dim, N words, D d_model.
"""

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hornbook.batching.shards import Documents
from hornbook.inference.engine import Engine
from hornbook.model.attention import Attention, causal_mask, reference_attention
from hornbook.model.rotary import rotate
from hornbook.model.transformer import Transformer
from hornbook.recipe import Recipe
from hornbook.recipe_training import TrainingSection
from hornbook.run_directory import read_json, write_json
from hornbook.stages.step_memory import memory_record
from hornbook.tokenizer.tokenizer import Tokenizer
from hornbook.training.metrics import read_metrics
from hornbook.training.microbatch import is_out_of_memory
from hornbook.training.trainer import Evaluator

_DOCUMENTS_LOOKED_AT = 1000
_TEXT_TOKENS = 26
_SENTENCES = 2
_WORD = re.compile(rb" [A-Za-z]{3,}")
_WORDS_SHOWN, _MOST_WORDS, _FREQUENT_WORDS_SKIPPED, _LEAST_COUNT = 8, 1000, 12, 3
_NEIGHBOURS, _NEIGHBOURS_IN_TABLE = 6, 3
_SAMPLE_TOKENS = 48
_LONGEST_TOKEN_BYTES, _TOKENS_NAMED = 16, 12


def leave_pictures(
    folder: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Documents,
    section: TrainingSection,
    rows_at_once: int,
) -> None:
    """Write attention.json, embeddings.json, tokens.json and memory.json into the stage's folder.

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
        "tokens": token_record(tokenizer, documents),
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
    counts = _token_counts(tokenizer, documents)
    often = [id for id in np.argsort(-counts, kind="stable").tolist() if counts[id] >= _LEAST_COUNT]
    return [id for id in often if _WORD.fullmatch(tokenizer.token_bytes(id))][:_MOST_WORDS]


def token_record(tokenizer: Tokenizer, documents: Documents) -> dict[str, Any]:
    """How many bytes tokens stand for, in the vocabulary and in text; the most frequent ones, and the longest used."""
    counts = _token_counts(tokenizer, documents)
    lengths = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)])
    lengths[list(tokenizer.special_ids.values())] = 0  # they stand for no text
    last = min(int(lengths.max()), _LONGEST_TOKEN_BYTES)
    capped = np.minimum(lengths, last)
    in_vocabulary, in_text = np.bincount(capped, minlength=last + 1), np.bincount(capped, counts, minlength=last + 1)
    often = [id for id in np.argsort(-counts, kind="stable").tolist() if lengths[id] and counts[id]]
    longest = sorted(often, key=lambda id: -lengths[id])
    return {
        "of_bytes": list(range(1, last + 1)),
        "in_vocabulary": in_vocabulary[1:].tolist(),
        "in_text": in_text[1:].astype(int).tolist(),
        "most_frequent": [{"token": tokenizer.decode([id]), "times": int(counts[id])} for id in often[:_TOKENS_NAMED]],
        "longest": [tokenizer.decode([id]) for id in longest[:_TOKENS_NAMED]],
    }


def _token_counts(tokenizer: Tokenizer, documents: Documents) -> np.ndarray:
    texts = [documents.tokens(number) for number in range(min(len(documents), _DOCUMENTS_LOOKED_AT))]
    return np.bincount(np.concatenate(texts).astype(np.int64), minlength=tokenizer.vocab_size)


def _is_spread() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
