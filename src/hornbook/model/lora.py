"""Low-rank adapters: a large matrix stays as it is, and a small one beside it learns the difference.

    y = W x + (alpha / rank) B A x,        A (rank, in), B (out, rank)

(Hu et al., arXiv 2106.09685.) B starts as zeros, so a model with adapters begins as the model it was. They are
attached from outside: the model's own weights keep their names and are frozen, and `merge_lora` leaves a model that
never knew of them. Adapters on disk are in the layout of Hugging Face's PEFT, which loads them onto the same base.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hornbook.errors import UserError
from hornbook.model.transformer import Transformer
from hornbook.recipe_training import LoraSection
from hornbook.run_directory import atomic_write, read_json, write_json
from hornbook.runtime import torch_generator

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_LORA_MARK = ".lora_"


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


def attach_lora(model: Transformer, section: LoraSection, seed: int) -> None:
    """Give the layers' matrices named in `targets` an adapter, and freeze everything else.

    A is drawn from the seed and its own name, as PEFT draws it (Kaiming uniform). Raises UserError where the model
    has none of the targets.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = [name for name, module in model.named_modules() if _is_target(name, module, section)]
    if not found:
        raise UserError(f"lora.targets: the model has no {' or '.join(section.targets)} in its layers. Name others.")
    for name in found:
        parent, _, child = name.rpartition(".")
        layer = LoraLinear(model.get_submodule(name), section.rank, section.alpha)  # type: ignore[arg-type]
        bound = 1 / math.sqrt(layer.in_features)
        with torch.no_grad():
            drawn = torch.rand(layer.lora_A.weight.shape, generator=torch_generator("lora", seed, name))
            layer.lora_A.weight.copy_((2 * drawn - 1) * bound)
            layer.lora_B.weight.zero_()
        setattr(model.get_submodule(parent), child, layer)


def merge_lora(model: Transformer) -> None:
    """Put every adapter into the matrix it stands beside; all parameters can be trained again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.merged())
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def trained_fraction(model: nn.Module) -> float:
    """The share of the parameters that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, is_trained in sizes if is_trained) / sum(size for size, _ in sizes)


def save_lora(model: Transformer, section: LoraSection, folder: Path, base: str) -> None:
    """Write the adapters as `PeftModel.from_pretrained(base_model, folder)` reads them.

    `base` is the name or folder of the model they belong to. Raises UserError for GPT-2, whose layout keeps query,
    key and value in one matrix, so that no adapter of one of them has a place in it.
    """
    if model.config.architecture == "gpt2":
        raise UserError("adapters of a GPT-2 have no place in PEFT's layout: use the merged model")
    tensors = {
        _PREFIX + name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
        if _LORA_MARK in name
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": section.rank,
        "lora_alpha": section.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({name.split(_LORA_MARK)[0].rpartition(".")[2] for name in tensors}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    atomic_write(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG_FILE, config)


def load_lora(model: Transformer, folder: Path) -> None:
    """Attach adapters that `save_lora`, or PEFT, wrote. Raises UserError where they are missing or do not fit."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: there is no {name} here, so these are no adapters. Name another folder.")
    config = read_json(folder / CONFIG_FILE)
    section = LoraSection(rank=config["r"], alpha=float(config["lora_alpha"]), targets=tuple(config["target_modules"]))
    attach_lora(model, section, seed=0)
    weights = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
    expected = {name: tensor.shape for name, tensor in model.state_dict().items() if _LORA_MARK in name}
    if expected != {name: tensor.shape for name, tensor in weights.items()}:
        raise UserError(f"{folder}: these adapters do not fit the model. Name the model that they were made for.")
    model.load_state_dict(weights, strict=False)


def _is_target(name: str, module: nn.Module, section: LoraSection) -> bool:
    return isinstance(module, nn.Linear) and ".layers." in name and name.rpartition(".")[2] in section.targets
