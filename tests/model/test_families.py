"""Models that transformers made, against transformers: every family we read, both ways, and as GGUF.

`pip install xllamacpp`, which brings llama.cpp ready-made, adds llama.cpp itself to the judges.
"""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers

from hornbook.errors import UserError
from hornbook.inference.engine import Engine
from hornbook.model.gguf_file import gguf_tensors, save_gguf
from hornbook.model.gguf_tokenizer import read_gguf_tokenizer
from hornbook.model.huggingface import load_pretrained, save_pretrained, to_hugging_face
from hornbook.model.transformer import Transformer
from hornbook.run_directory import read_json, write_json
from hornbook.runtime import torch_generator
from hornbook.tokenizer.tokenizer import Tokenizer

VOCAB_SIZE = 320
NEW_TOKENS = 64
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 100.0,  # so short that YaRN's passage begins and ends among the few pairs of a tiny head
    "factor": 4.0,
    "original_max_position_embeddings": 1024,
}
GROUPED = {"num_key_value_heads": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", GPT2),
    "gpt2 untied": ("gpt2", GPT2 | {"tie_word_embeddings": False, "n_inner": 96}),
    "llama multi-head": ("llama", LLAMA),
    "llama grouped-query": ("llama", LLAMA | GROUPED),
    "llama multi-query": ("llama", LLAMA | {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama with biases": ("llama", LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "llama stretched as llama3": ("llama", LLAMA | {"rope_parameters": LLAMA3_ROPE}),
    "llama stretched as yarn": ("llama", LLAMA | GROUPED | {"rope_parameters": YARN_ROPE}),
    "qwen3": ("qwen3", LLAMA | GROUPED | {"head_dim": 16}),
    "qwen3 stretched as yarn": ("qwen3", LLAMA | GROUPED | {"head_dim": 16, "rope_parameters": YARN_ROPE}),
    "qwen3 with a sliding window": (
        "qwen3",
        LLAMA | GROUPED | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
}
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
FOR_GGUF = {name: family for name, family in FAMILIES.items() if "sliding" not in name and "biases" not in name}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["Once upon a time there was a cat. The cat sat on the mat. "] * 3, 300, "llama3")


def theirs(family: tuple[str, dict[str, Any]]) -> transformers.PreTrainedModel:
    """A model of the family whose weights are far from their start, so that each one matters."""
    kind, settings = family
    config = transformers.AutoConfig.for_model(kind, vocab_size=VOCAB_SIZE, **settings)
    for name in ("attn_pdrop", "embd_pdrop", "resid_pdrop"):
        setattr(config, name, 0.0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.normal_(std=0.2, generator=torch_generator("family", name))
            if ("norm" in name and name.endswith("weight")) or (".ln_" in name and name.endswith("weight")):
                parameter.add_(1)
    return model.eval()


@pytest.fixture
def ids() -> torch.Tensor:
    """Longer than every window and every original length of the families."""
    return torch.randint(256, (2, 40), generator=torch_generator("ids"))


def check_alike(ours: Transformer, judge: transformers.PreTrainedModel, ids: torch.Tensor) -> None:
    """Logits within 1e-4 and gradients within 1e-3 of the judge's, relative to their norm."""
    our_logits, their_logits = ours.logits(ours(ids)), judge(ids).logits
    torch.testing.assert_close(our_logits, their_logits, rtol=0, atol=1e-4)
    for logits in (our_logits, their_logits):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    renamed = to_hugging_face(gradients, ours.config)
    for name, parameter in judge.named_parameters():
        assert (renamed[name] - parameter.grad).norm() <= 1e-3 * parameter.grad.norm(), name


def greedy(model: transformers.PreTrainedModel, prompt: list[int]) -> list[int]:
    """The tokens that transformers would write, whatever it takes for the end of a text."""
    model.generation_config.eos_token_id = None
    made = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0)
    return made[0, len(prompt) :].tolist()


def our_greedy(model: Transformer, prompt: list[int]) -> list[int]:
    class NeverEnds:
        end_of_text_id = -1

    return Engine(model, NeverEnds()).generate([prompt], NEW_TOKENS)[0]


@EVERY_FAMILY
def test_a_model_of_theirs_computes_the_same_here(
    family: tuple[str, dict[str, Any]], ids: torch.Tensor, tmp_path: Path
):
    judge = theirs(family)
    judge.save_pretrained(tmp_path)
    check_alike(load_pretrained(tmp_path), judge, ids)


@EVERY_FAMILY
def test_a_model_that_went_through_here_computes_the_same_there(
    family: tuple[str, dict[str, Any]], ids: torch.Tensor, tmp_path: Path
):
    theirs(family).save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    ours = load_pretrained(tmp_path / "theirs")
    save_pretrained(ours, tmp_path / "ours", end_of_text_id=1, pad_id=0, max_shard_bytes=40_000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 1
    judge, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    check_alike(ours, judge, ids)
    prompt = ids[0, :20].tolist()
    assert greedy(judge, prompt) == our_greedy(ours, prompt)


def write_gguf(family: tuple[str, dict[str, Any]], tokenizer: Tokenizer, folder: Path) -> Transformer:
    """The model in `folder`, as Hugging Face's layout and as model.gguf."""
    theirs(family).save_pretrained(folder)
    model = load_pretrained(folder)
    save_pretrained(model, folder, tokenizer.end_of_text_id, tokenizer.pad_id, tokenizer.special_id("<|end|>"))
    tokenizer.save(folder)
    save_gguf(model, read_gguf_tokenizer(folder), folder / "model.gguf", "tiny")
    return model


@pytest.mark.parametrize("family", FOR_GGUF.values(), ids=FOR_GGUF.keys())
def test_the_gguf_file_writes_the_same_tokens_in_transformers(
    family: tuple[str, dict[str, Any]], tokenizer: Tokenizer, tmp_path: Path
):
    """With our config.json beside it: from the file alone transformers takes neither stretched positions, nor the
    width of Qwen3's heads, nor the length of GPT-2's context."""
    ours = write_gguf(family, tokenizer, tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    judge = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", config=config)
    prompt = tokenizer.encode("Once upon a time")
    assert greedy(judge, prompt) == our_greedy(ours, prompt)


def test_a_llama_is_in_its_gguf_file_alone(tokenizer: Tokenizer, tmp_path: Path):
    ours = write_gguf(FAMILIES["llama grouped-query"], tokenizer, tmp_path / "whole")
    (tmp_path / "alone").mkdir()
    (tmp_path / "whole" / "model.gguf").rename(tmp_path / "alone" / "model.gguf")
    judge = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "alone", gguf_file="model.gguf")
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "alone", gguf_file="model.gguf")
    text = "Once upon a time 12345 cats' mats\n\n  sat, naïve 北京 😀"
    assert reader(text)["input_ids"] == tokenizer.encode(text)
    assert reader.decode(tokenizer.encode(text)) == text
    messages = [{"role": "user", "content": "Who sat?"}]
    expected = transformers.AutoTokenizer.from_pretrained(tmp_path / "whole").apply_chat_template(
        messages, add_generation_prompt=True
    )
    assert reader.apply_chat_template(messages, add_generation_prompt=True) == expected
    prompt = tokenizer.encode(text)
    assert greedy(judge, prompt) == our_greedy(ours, prompt)


@pytest.mark.parametrize("name", ["qwen3 with a sliding window", "llama with biases"])
def test_what_llama_cpp_would_compute_otherwise_is_refused(name: str, tokenizer: Tokenizer, tmp_path: Path):
    with pytest.raises(UserError, match=r"a GGUF file cannot hold this model: .* Export it as hf"):
        write_gguf(FAMILIES[name], tokenizer, tmp_path)
    assert not list(tmp_path.glob("*gguf*"))


def test_llama3s_stretching_is_in_the_file_as_divisors_of_the_frequencies(tmp_path: Path):
    theirs(FAMILIES["llama stretched as llama3"]).save_pretrained(tmp_path)
    model = load_pretrained(tmp_path)
    judge = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).model.rotary_emb
    plain = 1 / 500_000.0 ** (torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(plain / dict(gguf_tensors(model))["rope_freqs.weight"], judge.inv_freq)


def ask(server: Any, path: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.parametrize("family", FOR_GGUF.values(), ids=FOR_GGUF.keys())
def test_the_gguf_file_writes_the_same_tokens_in_llama_cpp(
    family: tuple[str, dict[str, Any]], tokenizer: Tokenizer, tmp_path: Path
):
    llama_cpp = pytest.importorskip("xllamacpp", reason="llama.cpp is not here: pip install xllamacpp")
    ours = write_gguf(family, tokenizer, tmp_path)
    parameters = llama_cpp.CommonParams()
    parameters.model.path = str(tmp_path / "model.gguf")
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 128, 1, 1
    # float32 as everywhere here: by default llama.cpp keeps past keys and values in half of it.
    parameters.cache_type_k = parameters.cache_type_v = llama_cpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    judge = llama_cpp.Server(parameters)
    text = "Once upon a time 12345 cats' mats\n\n  sat"
    prompt = tokenizer.encode(text)
    assert ask(judge, "/tokenize", {"content": text})["tokens"] == prompt
    wanted = {"n_predict": NEW_TOKENS, "temperature": 0, "top_k": 1, "return_tokens": True}
    made = ask(judge, "/completion", wanted | {"prompt": prompt})
    expected = our_greedy(ours, prompt)
    stops = {tokenizer.end_of_text_id, tokenizer.special_id("<|end|>")}
    n_until_stop = next((number for number, id in enumerate(expected, start=1) if id in stops), NEW_TOKENS)
    assert made["tokens_predicted"] == n_until_stop
    # The last may be missing: it ends the text, or is a part of a character.
    assert made["tokens"] == expected[: len(made["tokens"])]
    assert len(made["tokens"]) >= n_until_stop - 4


def cut_by(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, as_bytes]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model": {"type": "Unigram"}}, "cannot be written into a GGUF file: it is of the kind Unigram"),
        ({"normalizer": {"type": "Lowercase"}}, "cannot be written into a GGUF file: it changes texts first"),
        ({"pre_tokenizer": cut_by(r"\S+|\s+")}, "cuts text by a pattern that llama.cpp has no name for"),
    ],
)
def test_a_tokenizer_that_the_format_cannot_name_is_refused(
    change: dict[str, Any], complaint: str, tokenizer: Tokenizer, tmp_path: Path
):
    theirs(FAMILIES["gpt2"]).config.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    write_json(tmp_path / "tokenizer.json", read_json(tmp_path / "tokenizer.json") | change)
    with pytest.raises(UserError, match=complaint):
        read_gguf_tokenizer(tmp_path)
