"""Which model families load, and how far their numbers are from those of transformers, both ways.

    python benchmarks/model_families.py

For each family transformers makes a model with random weights far from their start, and saves it; we load it, and
compare the logits of 4 rows of 64 tokens and the gradients of every weight. "There" is the way back: we save the
model, transformers loads it, and the same is compared. Tokens: how many of 64 greedy ones are the same from the
Hugging Face export and from the GGUF file, read by transformers with the config.json that lies beside it.

Takes two minutes on one core. Needs the extra `dev`. Targets: logits 1e-4, gradients 1e-3, 64 tokens.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers

from hornbook.errors import UserError
from hornbook.inference.engine import Engine
from hornbook.model.gguf_file import save_gguf
from hornbook.model.gguf_tokenizer import read_gguf_tokenizer
from hornbook.model.huggingface import load_pretrained, save_pretrained, to_hugging_face
from hornbook.model.transformer import Transformer
from hornbook.tokenizer.tokenizer import Tokenizer

N_TOKENS = 64
VOCAB_SIZE = 512
GPT2 = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 256}
LLAMA = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}
GROUPED = LLAMA | {"num_key_value_heads": 2}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 512}
WINDOW = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", GPT2),
    "GPT-2, untied": ("gpt2", GPT2 | {"tie_word_embeddings": False}),
    "Llama, multi-head": ("llama", LLAMA),
    "Llama, grouped-query": ("llama", GROUPED),
    "Llama, multi-query, tied": ("llama", LLAMA | {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "Llama, with biases": ("llama", GROUPED | {"attention_bias": True, "mlp_bias": True}),
    "Llama 3.1's stretched positions": ("llama", GROUPED | {"rope_parameters": LLAMA3_ROPE}),
    "Llama, YaRN": ("llama", GROUPED | {"rope_parameters": YARN_ROPE}),
    "Qwen3": ("qwen3", GROUPED | {"head_dim": 64}),
    "Qwen3, YaRN": ("qwen3", GROUPED | {"head_dim": 64, "rope_parameters": YARN_ROPE}),
    "Qwen3, sliding window": ("qwen3", GROUPED | {"head_dim": 64} | WINDOW),
}


class Endless:
    """A tokenizer for `Engine` under which no token ends a text."""

    end_of_text_id = -1


def made_by_transformers(kind: str, settings: dict[str, Any], seed: int) -> transformers.PreTrainedModel:
    """A model whose weights are large enough for every part to matter."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, vocab_size=VOCAB_SIZE, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.normal_(mean=float(is_norm), std=0.1)
    return model


def differences(ours: Transformer, judge: transformers.PreTrainedModel, ids: torch.Tensor) -> tuple[float, float]:
    """The largest difference of a logit, and the largest of a gradient over that gradient's norm."""
    logits, expected = ours.logits(ours(ids)), judge(ids).logits
    for model, scores in ((ours, logits), (judge, expected)):
        model.zero_grad()
        F.cross_entropy(scores[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    renamed = to_hugging_face(gradients, ours.config)
    relative = [
        ((renamed[name] - parameter.grad).norm() / parameter.grad.norm()).item()
        for name, parameter in judge.named_parameters()
    ]
    return (logits - expected).abs().max().item(), max(relative)


def same_tokens(ours: Transformer, judge: transformers.PreTrainedModel, prompt: list[int]) -> int:
    """How many of the first greedy tokens are the same."""
    judge.generation_config.eos_token_id = None
    made = judge.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=N_TOKENS, pad_token_id=0)
    theirs = made[0, len(prompt) :].tolist()
    mine = Engine(ours, Endless()).generate([prompt], N_TOKENS)[0]
    return next((n for n, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b), N_TOKENS)


def measure(kind: str, settings: dict[str, Any], tokenizer: Tokenizer, seed: int, folder: Path) -> list[str]:
    """One row of the table, but for its name."""
    theirs = made_by_transformers(kind, settings, seed)
    theirs.save_pretrained(folder / "theirs")
    ours, back = load_pretrained(folder / "theirs"), folder / "ours"
    ids = torch.randint(VOCAB_SIZE, (4, 64), generator=torch.Generator().manual_seed(seed))
    here = differences(ours, theirs, ids)

    save_pretrained(ours, back, tokenizer.end_of_text_id, tokenizer.pad_id)
    tokenizer.save(back)
    judge = transformers.AutoModelForCausalLM.from_pretrained(back)
    there = differences(ours, judge, ids)
    prompt = ids[0, :16].tolist()
    row = [f"{value:.1e}" for value in (*here, *there)] + [f"{same_tokens(ours, judge, prompt)} of {N_TOKENS}"]
    try:
        save_gguf(ours, read_gguf_tokenizer(back), back / "model.gguf", kind)
    except UserError:
        return [*row, "refused"]
    config = transformers.AutoConfig.from_pretrained(back)
    reader = transformers.AutoModelForCausalLM.from_pretrained(back, gguf_file="model.gguf", config=config)
    return [*row, f"{same_tokens(ours, reader, prompt)} of {N_TOKENS}"]


def main() -> None:
    """Print the table of docs/RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights and of the tokens")
    seed = parser.parse_args().seed
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    tokenizer = Tokenizer.train(["Once upon a time there was a cat. The cat sat on the mat. "] * 3, 300, "llama3")
    header = ["family", "logits", "gradients", "logits there", "gradients there", "tokens, hf", "tokens, GGUF"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for name, (kind, settings) in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            print(f"| {name} | {' | '.join(measure(kind, settings, tokenizer, seed, Path(folder)))} |", flush=True)


if __name__ == "__main__":
    main()
