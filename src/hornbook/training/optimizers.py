"""The optimizers: AdamW for every parameter, or Muon for the layers' matrices and AdamW for the rest.

AdamW scales each weight's step by the size of its own past gradients. Muon treats a matrix as a whole: it
takes the momentum of the gradient and replaces it by the nearest orthogonal matrix, so that all directions of
the matrix learn at the same speed. On small language models that reaches a given loss in clearly fewer
tokens. It makes sense only for matrices that map one space of features onto another. Embeddings and the head
are looked up row by row, norms and biases are vectors: AdamW trains these in both cases.

Every state tensor exists from the construction on. So a checkpoint can be loaded in place, and memory that
does not suffice is noticed before the first step.

Shapes: N matrices of one shape, R rows <= C columns.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from hornbook.kernels.blocks import BlockKernels, load_blocks
from hornbook.model.transformer import Transformer
from hornbook.parallel.shards import cut_like, gathered, own_part
from hornbook.recipe_training import TrainingSection
from hornbook.runtime import multiplies_bfloat16, pick_dtype

_MUON_MOMENTUM = 0.95
_ADAMW_EPSILON = 1e-8
# Newton-Schulz: each iteration maps a singular value s to a*s + b*s^3 + c*s^5. These coefficients (Keller
# Jordan's) lift small ones as fast as possible, and in five iterations bring all to about 1, which is as good as 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def build_optimizer(model: Transformer, section: TrainingSection) -> "MuonWithAdamW":
    """The optimizer that a recipe asks for, over all parameters of the model that require a gradient.

    The model must be on its device already. Weight decay is for the matrices of the layers and of an untied
    head; embeddings, norms and biases have none.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    by_muon, decayed, undecayed = [], [], []
    for parameter in model.parameters():
        is_matrix = parameter.ndim == 2 and id(parameter) not in embeddings
        if not parameter.requires_grad:
            continue
        if is_matrix and section.optimizer == "muon" and parameter is not model.head_weight:
            by_muon.append(parameter)
        elif is_matrix:
            decayed.append(parameter)
        else:
            undecayed.append(parameter)
    in_bfloat16 = _multiplies_in_bfloat16(section, next(model.parameters()).device)
    muon_options = {"kind": "muon", "lr": section.muon_lr, "in_bfloat16": in_bfloat16}
    adamw_options = {"kind": "adamw", "lr": section.lr, "betas": (section.beta1, section.beta2)}
    groups = [
        {"params": by_muon, **muon_options, "weight_decay": section.weight_decay},
        {"params": decayed, **adamw_options, "weight_decay": section.weight_decay},
        {"params": undecayed, **adamw_options, "weight_decay": 0.0},
    ]
    return MuonWithAdamW([group for group in groups if group["params"]])


def _multiplies_in_bfloat16(section: TrainingSection, device: torch.device) -> bool:
    """Whether Muon multiplies float32 matrices in bfloat16: where the hardware does, and on a CPU only where the recipe
    computes in it, so that float32 there is float32 throughout."""
    is_wanted = device.type != "cpu" or pick_dtype(section.precision, device) == torch.bfloat16
    return is_wanted and multiplies_bfloat16(device)


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimizer whose parameter groups are each updated by Muon or by AdamW, as their "kind" says.

    Each group has a "kind" ("muon" or "adamw"), "lr" and "weight_decay", with AdamW "betas", and with Muon
    "in_bfloat16" where float32 matrices are to be multiplied so. "peak_lr" remembers the "lr" given, for
    `scale_learning_rates` to multiply.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, defaults={})
        for group in self.param_groups:
            group["peak_lr"] = group["lr"]
            for parameter in group["params"]:
                self.state[parameter] = _muon_state(parameter) if group["kind"] == "muon" else _adamw_state(parameter)

    def scale_learning_rates(self, scale: float) -> None:
        """Set the learning rate of each group to `scale` times its peak."""
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * scale

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient. A closure is called first, as torch's optimizers do."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            # Of a parameter that is spread over processes, each updates the part that it has.
            gradients = [own_part(parameter.grad) for parameter in parameters if parameter.grad is not None]
            states = [
                {name: own_part(tensor) for name, tensor in self.state[parameter].items()} for parameter in parameters
            ]
            if group["kind"] == "muon":
                _muon_step(parameters, gradients, states, group)
            else:
                _adamw_step([own_part(parameter) for parameter in parameters], gradients, states, group)
        return loss


def _kernels_for(matrices: list[Tensor], in_bfloat16: bool) -> BlockKernels | None:
    """The C functions for a step of Muon, where it multiplies float32 matrices on a CPU in bfloat16; else None."""
    fit = all(matrix.device.type == "cpu" and matrix.dtype == torch.float32 for matrix in matrices)
    return load_blocks() if in_bfloat16 and matrices and fit else None


def _muon_state(parameter: Tensor) -> dict[str, Tensor]:
    return {"momentum": torch.zeros_like(parameter)}


def _adamw_state(parameter: Tensor) -> dict[str, Tensor]:
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}


def _adamw_step(
    parameters: list[Tensor], gradients: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]
) -> None:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), in torch's fused kernel where there is one."""
    if not parameters:
        return
    adamw(
        parameters,
        gradients,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        fused=parameters[0].device.type in ("cpu", "cuda", "mps"),
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=_ADAMW_EPSILON,
        maximize=False,
    )


def _muon_step(
    matrices: list[Tensor],
    gradients: list[Tensor],
    states: list[dict[str, Tensor]],
    group: dict[str, Any],
) -> None:
    """Muon (Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), Nesterov momentum, and the
    decoupled weight decay that Moonshot AI added (Liu et al. 2025, arXiv:2502.16982).

    A matrix that is spread over processes is gathered for it, and each process orthogonalises all matrices that it has
    a part of. C functions do the same on a CPU, one matrix after the other while it is in the cache.
    """
    in_bfloat16 = group.get("in_bfloat16", False)
    kernels = _kernels_for(matrices, in_bfloat16)
    momenta = [state["momentum"] for state in states]
    step_sizes = [group["lr"] * _longer_step(matrix) for matrix in matrices]
    kept = 1 - group["lr"] * group["weight_decay"]
    if kernels is not None and not any(isinstance(matrix, DTensor) for matrix in matrices):
        whole = [gradient.contiguous() for gradient in gradients]
        kernels.muon_step(matrices, whole, momenta, _MUON_MOMENTUM, _COEFFICIENTS, _ITERATIONS, kept, step_sizes)
        return
    torch._foreach_lerp_(momenta, gradients, 1 - _MUON_MOMENTUM)
    directions = [
        gathered(direction, like=matrix)
        for direction, matrix in zip(torch._foreach_lerp(gradients, momenta, _MUON_MOMENTUM), matrices, strict=True)
    ]
    if kernels is None:
        directions = _orthogonal_together(directions, in_bfloat16)
    else:
        directions = [direction.contiguous() for direction in directions]
        kernels.orthogonalize(directions, _COEFFICIENTS, _ITERATIONS)
    for matrix, direction, step_size in zip(matrices, directions, step_sizes, strict=True):
        own_part(matrix).mul_(kept).add_(cut_like(direction, like=matrix), alpha=-step_size)


def _longer_step(matrix: Tensor) -> float:
    """A tall matrix steps further, so that its outputs change as much as a square one's."""
    n_outputs, n_inputs = matrix.shape
    return math.sqrt(max(1.0, n_outputs / n_inputs))


def _orthogonal_together(matrices: list[Tensor], in_bfloat16: bool) -> list[Tensor]:
    """Each orthogonalised. Those of one shape, perhaps turned, go together: a few large batched products."""
    indices_by_shape = defaultdict(list)
    for index, matrix in enumerate(matrices):
        indices_by_shape[min(matrix.shape), max(matrix.shape)].append(index)
    orthogonal = list(matrices)
    for indices in indices_by_shape.values():
        together_NRC = orthogonalize(torch.stack([_widened(matrices[index]) for index in indices]), in_bfloat16)
        for index, orthogonal_RC in zip(indices, together_NRC, strict=True):
            n_outputs, n_inputs = matrices[index].shape
            orthogonal[index] = orthogonal_RC.T if n_outputs > n_inputs else orthogonal_RC
    return orthogonal


def _widened(matrix: Tensor) -> Tensor:
    """The matrix, turned where it has more rows than columns: the products of Newton-Schulz are R x R."""
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def orthogonalize(matrices_NRC: Tensor, in_bfloat16: bool = False) -> Tensor:
    """About U V^T for each matrix U S V^T of a stack, by Newton-Schulz iterations: (N,R,C), R <= C.

    in_bfloat16: float32 is computed in bfloat16, which is enough for learning: five iterations leave singular
    values between 0.7 and 1.2 anyway. A matrix of zeros stays one. Eager code is used on purpose: these are plain
    batched products, which compiling was measured not to speed up.
    """
    a, b, c = _COEFFICIENTS
    x_NRC = matrices_NRC / (torch.linalg.matrix_norm(matrices_NRC, keepdim=True) + 1e-7)
    if in_bfloat16 and x_NRC.dtype == torch.float32:
        x_NRC = x_NRC.bfloat16()
    for _ in range(_ITERATIONS):
        gram_NRR = x_NRC @ x_NRC.mT
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, polynomial_NRR, x_NRC, beta=a)
    return x_NRC
