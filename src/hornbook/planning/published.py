"""Trainings that others have published, to hold the plan against: what it says of them, and what they say themselves.

`hornbook plan --published` prints the table. Every figure is in the source named beside it. A utilisation is
"published" where the source gives it for this very run, and "of a sibling" where it is borrowed from a run of the same
makers. It is "implied" where the hours are all there is: then there is nothing to predict, and the table says so.
"""

from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table

from hornbook.model.config import ModelConfig
from hornbook.planning.flops import flops_per_token, parameters_by_part
from hornbook.planning.hardware import device_named
from hornbook.planning.units import quantity

Kind = Literal["published", "of a sibling", "implied"]


@dataclass(frozen=True)
class PublishedRun:
    """One training as its makers describe it.

    flops and gpu_hours are their figures, None where they give none. utilisation: the share of the device's dense
    bfloat16 peak, attention counted.
    """

    name: str
    config: ModelConfig
    row_tokens: int
    tokens: float
    source: str
    flops: float | None = None
    device: str = "A100"
    gpu_hours: float | None = None
    utilisation: float | None = None
    utilisation_is: Kind = "published"

    @property
    def predicted_flops(self) -> float:
        return self.tokens * flops_per_token(self.config, self.row_tokens).total

    @property
    def implied_utilisation(self) -> float | None:
        """The share of the peak that the published hours amount to, by the plan's count of operations."""
        if self.gpu_hours is None:
            return None
        return self.predicted_flops / (self.gpu_hours * 3600 * device_named(self.device).flops_per_second)

    @property
    def predicted_gpu_hours(self) -> float | None:
        if self.utilisation is None:
            return None
        return self.predicted_flops / (self.utilisation * device_named(self.device).flops_per_second) / 3600


def _gpt(n_layers: int, d_model: int, n_heads: int, vocab_size: int, row_tokens: int, tied: bool = True) -> ModelConfig:
    """GPT-2's layers: two matrices in the feed-forward, four times as wide."""
    return _config("gpt2", n_layers, d_model, n_heads, n_heads, 4 * d_model, vocab_size, row_tokens, tied)


def _llama(
    n_layers: int, d_model: int, n_heads: int, n_kv_heads: int, d_ff: int, vocab_size: int, row_tokens: int
) -> ModelConfig:
    return _config("llama", n_layers, d_model, n_heads, n_kv_heads, d_ff, vocab_size, row_tokens, False)


def _config(
    architecture: Literal["gpt2", "llama"],
    n_layers: int,
    d_model: int,
    n_heads: int,
    n_kv_heads: int,
    d_ff: int,
    vocab_size: int,
    row_tokens: int,
    tied: bool,
) -> ModelConfig:
    is_gpt2 = architecture == "gpt2"
    return ModelConfig(
        architecture=architecture,
        vocab_size=vocab_size,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=d_model // n_heads,
        d_ff=d_ff,
        max_seq_len=row_tokens,
        window_tokens=(None,) * n_layers,
        norm="layernorm" if is_gpt2 else "rmsnorm",
        norm_eps=1e-5,
        positions="learned" if is_gpt2 else "rotary",
        rope_theta=10_000.0,
        rope_scaling=None,
        activation="gelu" if is_gpt2 else "swiglu",
        attention_bias=is_gpt2,
        mlp_bias=is_gpt2,
        qk_norm=False,
        tie_embeddings=tied,
    )


_LLAMA_1 = "Touvron et al. 2023, arXiv 2302.13971, section 2.4 and table 15"
_LLAMA_2 = "Touvron et al. 2023, arXiv 2307.09288, table 2"
_LLAMA_3 = "Llama 3.1 model card (Meta); Llama Team 2024, arXiv 2407.21783, section 3.3 and table 4"
_NANOCHAT = "nanochat README (January 2026) and discussion 1; utilisation of depth 18 in dev/LOG"
# Llama 1's 65B reached 380 tokens a second on each A100 (its section 2.4): by the plan's count, half of the peak.
_LLAMA_1_UTILISATION = 0.497

PUBLISHED_RUNS = (
    PublishedRun("GPT-3 175B", _gpt(96, 12288, 96, 50257, 2048), 2048, 300e9,
                 "Brown et al. 2020, arXiv 2005.14165, tables 2.1 and D.1", flops=3.14e23),
    # Relative positions (Transformer-XL's) add a matrix to each of its layers, which is not counted here.
    PublishedRun("Chinchilla 70B", _gpt(80, 8192, 64, 32000, 2048), 2048, 1.4e12,
                 "Hoffmann et al. 2022, arXiv 2203.15556, tables 3 and 4", flops=5.76e23),
    PublishedRun("Llama 1 65B", _llama(80, 8192, 64, 64, 22016, 32000, 2048), 2048, 1.4e12, _LLAMA_1,
                 gpu_hours=1_022_362, utilisation=_LLAMA_1_UTILISATION),
    PublishedRun("Llama 2 7B", _llama(32, 4096, 32, 32, 11008, 32000, 4096), 4096, 2e12, _LLAMA_2,
                 gpu_hours=184_320, utilisation=_LLAMA_1_UTILISATION, utilisation_is="of a sibling"),
    PublishedRun("Llama 2 13B", _llama(40, 5120, 40, 40, 13824, 32000, 4096), 4096, 2e12, _LLAMA_2,
                 gpu_hours=368_640, utilisation=_LLAMA_1_UTILISATION, utilisation_is="of a sibling"),
    PublishedRun("Llama 2 34B", _llama(48, 8192, 64, 8, 22016, 32000, 4096), 4096, 2e12, _LLAMA_2,
                 gpu_hours=1_038_336, utilisation=_LLAMA_1_UTILISATION, utilisation_is="of a sibling"),
    PublishedRun("Llama 2 70B", _llama(80, 8192, 64, 8, 28672, 32000, 4096), 4096, 2e12, _LLAMA_2,
                 gpu_hours=1_720_320, utilisation=_LLAMA_1_UTILISATION, utilisation_is="of a sibling"),
    PublishedRun("Llama 3.1 8B", _llama(32, 4096, 32, 8, 14336, 128256, 8192), 8192, 15e12, _LLAMA_3,
                 device="H100", gpu_hours=1.46e6, utilisation=0.41, utilisation_is="of a sibling"),
    PublishedRun("Llama 3.1 70B", _llama(80, 8192, 64, 8, 28672, 128256, 8192), 8192, 15e12, _LLAMA_3,
                 device="H100", gpu_hours=7.0e6, utilisation=0.41, utilisation_is="of a sibling"),
    PublishedRun("Llama 3.1 405B", _llama(126, 16384, 128, 8, 53248, 128256, 8192), 8192, 15.6e12, _LLAMA_3,
                 flops=3.8e25, device="H100", gpu_hours=30.84e6, utilisation=0.41),
    # 18,865 steps of 300 ms on 8 devices: the share of the peak follows from the time, so the time is no prediction.
    PublishedRun("GPT-2 124M, llm.c", _gpt(12, 768, 12, 50304, 1024), 1024, 9.89e9,
                 "llm.c, scripts/run_gpt2_124M.sh and discussion 481", flops=7.44e18,
                 gpu_hours=8 * 94.3 / 60, utilisation_is="implied"),
    PublishedRun("nanochat d20", _gpt(20, 1280, 10, 65536, 2048, tied=False), 2048, 11.22e9, _NANOCHAT, flops=4e19,
                 device="H100", gpu_hours=8 * 3.0, utilisation=0.46, utilisation_is="of a sibling"),
    # Three of four of its layers see half a row; the whole table is counted here.
    PublishedRun("nanochat d24", _gpt(24, 1536, 12, 32768, 2048, tied=False), 2048, 16704 * 524288, _NANOCHAT,
                 flops=4.33e19, device="H100", gpu_hours=8 * 10949 / 3600, utilisation=0.46,
                 utilisation_is="of a sibling"),
    PublishedRun("TinyLlama 1.1B", _llama(22, 2048, 32, 4, 5632, 32000, 2048), 2048, 300e9,
                 "TinyLlama README; Zhang et al. 2024, arXiv 2401.02385", gpu_hours=3456, utilisation=0.56),
)  # fmt: skip


def render_published(console: Console) -> None:
    """Print predicted against published: the operations, and the hours at a share of the peak that is known."""
    operations = _table("The plan against published trainings", "parameters", "FLOPs\nplanned", "published", "off by")
    hours = _table("Hours of a GPU", "planned", "published", "off by", "at a share of\nthe peak", "hours\nimply")
    for run in PUBLISHED_RUNS:
        operations.add_row(
            run.name,
            f"{sum(parameters_by_part(run.config).values()) / 1e9:,.3g} B",
            f"{run.predicted_flops:.2e}",
            "" if run.flops is None else f"{run.flops:.2e}",
            _off(run.predicted_flops, run.flops),
        )
        if run.gpu_hours is None:
            continue
        predicted, implied = run.predicted_gpu_hours, run.implied_utilisation
        hours.add_row(
            run.name,
            "" if predicted is None else quantity(predicted),
            quantity(run.gpu_hours),
            _off(predicted, run.gpu_hours),
            "" if run.utilisation is None else f"{run.utilisation:.0%} {run.utilisation_is}",
            "" if implied is None else f"{implied:.0%}",
        )
    console.print(operations)
    console.print(hours)
    for source in dict.fromkeys(f"{run.name.split(' ')[0]}: {run.source}" for run in PUBLISHED_RUNS):
        console.print(f"  {source}", style="dim", highlight=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table("run", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _off(predicted: float | None, published: float | None) -> str:
    return "" if predicted is None or published is None else f"{predicted / published - 1:+.1%}"
