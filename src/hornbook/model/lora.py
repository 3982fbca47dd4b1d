"""Low-rank adapters: a large matrix stays as it is, and a small one beside it learns the difference.

    y = W x + (alpha / rank) B A x,        A (rank, in), B (out, rank)

(Hu et al., arXiv 2106.09685.) B starts as zeros, so a model with adapters begins as the model it was. They are
attached from outside: the model's own weights are frozen, and `merge_lora` leaves a model that never knew of them. Of
tokens that are new to the model, the rows in embedding and head are trained beside the adapters, since no adapter could
tell apart what they say. Adapters on disk are in the layout of Hugging Face's PEFT, which loads them onto the same
base.
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hornbook.errors import UserError
from hornbook.model.transformer import Transformer
from hornbook.model.vocabulary import TABLES, TrainedRows
from hornbook.recipe_training import LoraSection
from hornbook.run_directory import atomic_write, read_json, write_json
from hornbook.runtime import torch_generator

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_LORA_MARK = ".lora_"
_ROWS, _ROWS_IN_PEFT = ".rows.weight", ".token_adapter.trainable_tokens_delta"


class LoraLinear(nn.Linear):
    """A linear map with an adapter; its own weight is the one of the map it takes the place of."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        # On the meta device nothing is allocated: the weights are the old ones.
        with torch.device("meta"):
            super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        device, dtype = linear.weight.device, linear.weight.dtype
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False, device=device, dtype=dtype)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False, device=device, dtype=dtype)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.scale * self.lora_B(self.lora_A(x))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain map that computes the same. The product is made in float64, so that little is lost."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        difference = self.scale * self.lora_B.weight.double() @ self.lora_A.weight.double()
        linear.weight = nn.Parameter((self.weight.double() + difference).to(self.weight.dtype))
        linear.bias = self.bias
        return linear


def attach_lora(model: Transformer, section: LoraSection, seed: int, new_tokens: range = range(0)) -> None:
    """Give the layers' matrices named in `targets` an adapter, and freeze everything else.

    A is drawn from the seed and its own name, as PEFT draws it (Kaiming uniform). new_tokens: those whose rows in
    embedding and head are trained too. Raises UserError where the model has none of the targets.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = [name for name, module in model.named_modules() if _is_target(name, module, section)]
    if not found:
        raise UserError(f"lora.targets: the model has no {' or '.join(section.targets)} in its layers. Name others.")
    for name in found:
        layer = LoraLinear(model.get_submodule(name), section.rank, section.alpha)  # type: ignore[arg-type]
        bound = 1 / math.sqrt(layer.in_features)
        with torch.no_grad():
            drawn = torch.rand(layer.lora_A.weight.shape, generator=torch_generator("lora", seed, name))
            layer.lora_A.weight.copy_((2 * drawn - 1) * bound)
            layer.lora_B.weight.zero_()
        model.set_submodule(name, layer)
    if new_tokens:
        for name in [name for name, _ in model.named_modules() if name in TABLES]:
            model.set_submodule(name, TrainedRows(model.get_submodule(name), new_tokens))  # type: ignore[arg-type]


def merge_lora(model: Transformer) -> None:
    """Put every adapter, and every row of a new token, into its matrix; all parameters can be trained again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLinear | TrainedRows):
            model.set_submodule(name, module.merged())
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def trained_fraction(model: nn.Module) -> float:
    """The share of the parameters that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, is_trained in sizes if is_trained) / sum(size for size, _ in sizes)


def save_lora(model: Transformer, section: LoraSection, folder: Path, base: str) -> None:
    """Write the adapters as `PeftModel.from_pretrained(base_model, folder)` reads them.

    `base` is the name or folder of the model they belong to. Where rows of new tokens were trained, PEFT puts them in
    the place of the base model's, which has to have them: `base_model.resize_token_embeddings(V)` makes room. Raises
    UserError for GPT-2, whose layout keeps query, key and value in one matrix, so that no adapter of one of them has a
    place in it.
    """
    if model.config.architecture == "gpt2":
        raise UserError("adapters of a GPT-2 have no place in PEFT's layout: use the merged model")
    tensors = {
        _PREFIX + name.replace(_ROWS, _ROWS_IN_PEFT): tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
        if _is_adapter(name)
    }
    rows = {
        name.rpartition(".")[2]: list(module.tokens)
        for name, module in model.named_modules()
        if isinstance(module, TrainedRows)
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": section.rank,
        "lora_alpha": section.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(
            {name.split(_LORA_MARK)[0].rpartition(".")[2] for name in tensors if _LORA_MARK in name}
        ),
        "trainable_token_indices": rows or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    atomic_write(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG_FILE, config)


def load_lora(model: Transformer, folder: Path) -> None:
    """Attach adapters that `save_lora`, or PEFT, wrote. Raises UserError where they are missing or do not fit.

    Where they have rows of new tokens, the model needs room for them: give it that first (`with_vocabulary_of`).
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: there is no {name} here, so these are no adapters. Name another folder.")
    config = read_json(folder / CONFIG_FILE)
    section = LoraSection(rank=config["r"], alpha=float(config["lora_alpha"]), targets=tuple(config["target_modules"]))
    new_tokens = _trained_tokens(config)
    if new_tokens.stop > model.config.vocab_size:
        raise UserError(
            f"{folder}: these adapters have rows of tokens up to {new_tokens.stop - 1}, but the model has only "
            f"{model.config.vocab_size} rows. Give it room first: with_vocabulary_of(model, {new_tokens.stop})."
        )
    attach_lora(model, section, seed=0, new_tokens=new_tokens)
    weights = {
        name.removeprefix(_PREFIX).replace(_ROWS_IN_PEFT, _ROWS): tensor
        for name, tensor in load_file(folder / WEIGHTS_FILE).items()
    }
    expected = {name: tensor.shape for name, tensor in model.state_dict().items() if _is_adapter(name)}
    if expected != {name: tensor.shape for name, tensor in weights.items()}:
        raise UserError(f"{folder}: these adapters do not fit the model. Name the model that they were made for.")
    model.load_state_dict(weights, strict=False)


def _trained_tokens(config: dict[str, Any]) -> range:
    """The tokens whose rows the adapters have. Their ids follow each other, as those of added tokens do."""
    ids = [id for of_table in (config.get("trainable_token_indices") or {}).values() for id in of_table]
    return range(min(ids), max(ids) + 1) if ids else range(0)


def _is_adapter(name: str) -> bool:
    """Whether a tensor of this name is trained beside the model's own, and not one of them."""
    return _LORA_MARK in name or name.endswith(_ROWS)


def _is_target(name: str, module: nn.Module, section: LoraSection) -> bool:
    return isinstance(module, nn.Linear) and ".layers." in name and name.rpartition(".")[2] in section.targets
