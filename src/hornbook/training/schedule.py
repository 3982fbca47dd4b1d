"""The learning rate at each step: a pure function, so nothing of it needs to be saved or restored."""

import math

from hornbook.recipe_training import TrainingSection


def learning_rate_scale(step: int, total_steps: int, section: TrainingSection) -> float:
    """What the peak learning rates are multiplied by at step 0 <= step < total_steps.

    A linear warm-up reaches 1 at its last step. Then "constant" stays at 1; "cosine" falls along half a
    cosine until the end (Loshchilov and Hutter 2017, arXiv:1608.03983); "wsd" (warm-up, stable, decay: Hu et
    al. 2024, arXiv:2404.06395) stays at 1 and falls linearly over the last `decay_fraction` of all steps.
    Both would be at `final_lr_fraction` one step after the last, so that no step is spent at a learning rate
    of zero.
    """
    warmup_steps = round(section.warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if section.schedule == "constant":
        return 1.0
    if section.schedule == "cosine":
        progress = (step - warmup_steps) / (total_steps - warmup_steps)
        above_final = (1 + math.cos(math.pi * progress)) / 2
    else:
        decay_start = max(warmup_steps, total_steps - round(section.decay_fraction * total_steps))
        above_final = 1.0 if step < decay_start else (total_steps - step) / (total_steps - decay_start)
    return section.final_lr_fraction + (1 - section.final_lr_fraction) * above_final
