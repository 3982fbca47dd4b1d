"""How fast is a model of 124M parameters in writing, against transformers' Llama and what the memory allows?

    python benchmarks/inference.py [--batches 1 16] [--tokens 24] [--rounds 5] [--threads 1]

Random weights in the shape of Llama (12 layers of 768, 12 heads, vocabulary 50,304), greedy, prompts of 64 tokens. The
peers take turns within a round, and medians over the rounds are printed: new tokens per second of all rows, the first
one left out; the ratio to transformers in bfloat16, or in float32 where the processor does not multiply bfloat16; and,
for one row, the share of the time that reading every weight once would take. What the memory gives is measured in the
same rounds. Seconds are those of the clock, or with one thread, where the machine does other work
too, those of the thread. Needs the extra `dev`.
"""

import argparse
import copy
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch
import transformers

from hornbook.inference.batch import ContinuousBatch, Request
from hornbook.inference.fast_model import FastTransformer
from hornbook.inference.kernels.library import load_kernels
from hornbook.model.config import config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import ModelSection
from hornbook.runtime import pick_dtype, torch_generator

VOCAB_SIZE, PROMPT_TOKENS, CONTEXT_TOKENS = 50304, 64, 512
Peer = Callable[[int, int], float]
"""The tokens per second of so many rows with so many new tokens each."""


def our_model() -> Transformer:
    section = ModelSection(preset="llama", n_layers=12, d_model=768, n_heads=12, max_seq_len=CONTEXT_TOKENS)
    model = Transformer(config_from_recipe(section, VOCAB_SIZE))
    generator = torch_generator("weights")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02, generator=generator)
    return model


def ours(model: Transformer, prompt: list[int], clock: Callable[[], float]) -> Peer:
    def write(n_rows: int, n_new: int) -> float:
        batch = ContinuousBatch(model, n_rows, CONTEXT_TOKENS)
        for row in range(n_rows):
            batch.submit(Request([row, *prompt], n_new))
        batch.step()
        started = clock()
        while batch.n_active:
            batch.step()
        return n_rows * (n_new - 1) / (clock() - started)

    return write


def theirs(dtype: torch.dtype, d_ff: int, prompt: list[int], clock: Callable[[], float]) -> Peer:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=768, intermediate_size=d_ff, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=CONTEXT_TOKENS, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(dtype).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0

    class Clock(transformers.LogitsProcessor):
        first: float | None = None

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            self.first = self.first or clock()
            return scores

    def write(n_rows: int, n_new: int) -> float:
        seen = Clock()
        ids = torch.tensor([[row, *prompt] for row in range(n_rows)])
        options = {"max_new_tokens": n_new, "do_sample": False, "logits_processor": [seen]}
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        assert seen.first is not None
        return n_rows * (n_new - 1) / (clock() - seen.first)

    return write


def bytes_per_second(clock: Callable[[], float]) -> float:
    """What the memory gives to the faster of two readers: torch's sum of 256 MB, or the kernels' product of them."""
    matrix, kernels = torch.ones(2**16, 2**10), load_kernels()
    readers: list[Callable[[], object]] = [matrix.sum]
    if kernels is not None:
        readers.append(lambda: kernels.multiply(matrix, None, matrix[:1]))
    best = 0.0
    for read in readers:
        started = clock()
        read()
        best = max(best, matrix.nbytes / (clock() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    model = our_model()
    config, n_head = model.config, model.head_weight.numel()
    n_weights = sum(parameter.numel() for parameter in model.model.layers.parameters()) + n_head
    prompt = torch.randint(VOCAB_SIZE, (PROMPT_TOKENS - 1,), generator=torch_generator("prompt")).tolist()
    peers: dict[str, tuple[Peer, int]] = {
        "transformers float32": (theirs(torch.float32, config.d_ff, prompt, clock), 4),
        "hornbook plain float32": (ours(copy.deepcopy(model), prompt, clock), 4),
        "hornbook float32": (ours(FastTransformer.of(copy.deepcopy(model)), prompt, clock), 4),
    }
    dtype = pick_dtype("auto", torch.device("cpu"))
    half = model.to(dtype)
    if dtype == torch.bfloat16:
        peers |= {
            "transformers bfloat16": (theirs(torch.bfloat16, config.d_ff, prompt, clock), 2),
            "hornbook bfloat16": (ours(FastTransformer.of(copy.deepcopy(half)), prompt, clock), 2),
        }
    peers["hornbook int8"] = (ours(FastTransformer.of(half, is_int8=True), prompt, clock), 1)
    print(f"{n_weights / 1e6:.0f}M weights are read for a token; threads: {options.threads}")
    print(f"{'rows':>5} {'peer':24}{'tokens/s':>10}{'ratio':>8}{'share of the limit':>20}")
    for n_rows in options.batches:
        rates: dict[str, list[float]] = defaultdict(list)
        memory = []
        for _ in range(options.rounds):
            memory.append(bytes_per_second(clock))
            for name, (write, _) in peers.items():
                rates[name].append(write(n_rows, options.tokens))
        base = rates.get("transformers bfloat16", rates["transformers float32"])
        for name, (_, weight_bytes) in peers.items():
            rate = statistics.median(rates[name])
            ratio = statistics.median(a / b for a, b in zip(rates[name], base, strict=True))
            limit = statistics.median(memory) / (n_weights * weight_bytes)
            share = f"{100 * rate / limit:.0f}% of {limit:.0f}" if n_rows == 1 else ""
            print(f"{n_rows:>5} {name:24}{rate:>10.1f}{ratio:>8.2f}{share:>20}", flush=True)
        print(f"      memory: {statistics.median(memory) / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
