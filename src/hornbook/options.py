"""What each verb of the command line takes, as dataclasses from which tyro makes the parser and the help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

RecipePath = Annotated[Path, Positional, arg(metavar="RECIPE", help="A recipe, such as recipes/quickstart.toml.")]
RunPath = Annotated[Path, Positional, arg(metavar="RUN", help="The folder of a run, such as runs/quickstart.")]
ModelPath = Annotated[
    Path,
    Positional,
    arg(metavar="RUN", help="The folder of a run, such as runs/quickstart, or of a model in Hugging Face's layout."),
]
Int8 = Annotated[bool, arg(help="Hold the weights as 8-bit integers: about twice as fast on a CPU, hardly worse.")]
Drafts = Annotated[bool, arg(help="Guess ahead from the text itself: the same text, sooner where it repeats itself.")]


@dataclass
class RunOptions:
    """Options of `run`, beside the recipe's fields."""

    recipe: RecipePath
    only: Annotated[
        str | None,
        arg(metavar="STAGE", help="Run this stage alone.", help_behavior_hint="(default: all stages)"),
    ] = None
    start: Annotated[
        str | None,
        arg(
            name="from",
            metavar="STAGE",
            help="Begin with this stage.",
            help_behavior_hint="(default: the first)",
        ),
    ] = None
    until: Annotated[
        str | None,
        arg(metavar="STAGE", help="End with this stage.", help_behavior_hint="(default: the last)"),
    ] = None
    runs: Annotated[Path, arg(metavar="DIR", help="Where runs lie; this one gets the folder DIR/NAME.")] = Path("runs")


@dataclass
class PlanOptions:
    """Options of `plan`, beside the recipe's fields."""

    recipe: RecipePath
    flops_per_second: Annotated[
        float | None,
        arg(
            metavar="NUMBER",
            help="Floating point operations per second of the machine to plan for.",
            help_behavior_hint="(default: measured on this one)",
        ),
    ] = None
    gpu: Annotated[
        str | None,
        arg(metavar="NAME", help="An accelerator from the table: t4 … a100, h100, h200, b200.", help_behavior_hint=""),
    ] = None
    gpus: Annotated[int, arg(help="How many devices.")] = 1
    utilisation: Annotated[
        float | None,
        arg(
            metavar="SHARE",
            help="The share of a device's rate that training reaches.",
            help_behavior_hint="(default: measured on this machine, 0.4 elsewhere)",
        ),
    ] = None
    price: Annotated[float | None, arg(metavar="DOLLARS", help="An hour of one device.", help_behavior_hint="")] = None
    budget: Annotated[
        float | None, arg(metavar="DOLLARS", help="What size of model they are best spent on.", help_behavior_hint="")
    ] = None
    write: Annotated[bool, arg(help="Put the advice into the recipe's file; its comments stay.")] = False
    picture: Annotated[
        Path | None,
        arg(metavar="FILE", help="Draw the memory of one device, as SVG.", help_behavior_hint=""),
    ] = None
    json: Annotated[bool, arg(help="Print JSON, for machines.")] = False
    published: Annotated[bool, arg(help="Hold the plan against trainings that others have published.")] = False


@dataclass
class ReferenceOptions:
    """Options of `reference`, beside the recipe's fields."""

    recipe: RecipePath
    seeds: Annotated[int, arg(help="Runs, each with a seed of its own; three or more say how far runs differ.")] = 3
    runs: Annotated[Path, arg(metavar="DIR", help="Where these runs lie.")] = Path("runs/references")


@dataclass
class ScaleOptions:
    """Options of `scale`, beside the recipe's fields."""

    recipe: RecipePath
    sizes: Annotated[int, arg(help="Sizes of the ladder; one more, four times dearer, is held out.")] = 5
    flops: Annotated[
        float | None,
        arg(
            metavar="NUMBER",
            help="Operations of the dearest run that the law is fitted to.",
            help_behavior_hint="(default: a sixteenth of the recipe's)",
        ),
    ] = None
    runs: Annotated[Path, arg(metavar="DIR", help="Where the ladder's runs lie.")] = Path("runs/ladders")
    json: Annotated[bool, arg(help="Print JSON, for machines.")] = False


@dataclass
class CheckOptions:
    """Options of `check`, beside the recipe's fields."""

    recipe: RecipePath
    runs: Annotated[
        Path, arg(metavar="DIR", help="Where runs lie; the data of DIR/NAME is taken where it is there.")
    ] = Path("runs")
    json: Annotated[bool, arg(help="Print JSON, for machines.")] = False


@dataclass
class WritingOptions:
    """How `sample` and `chat` write."""

    tokens: Annotated[int, arg(help="Tokens to write, at most.")] = 256
    temperature: Annotated[float, arg(help="0 takes the likeliest token, 1 draws as the model predicts.")] = 0.8
    top_k: Annotated[
        int | None, arg(help="Draw among so many of the likeliest tokens.", help_behavior_hint="(default: all)")
    ] = None
    top_p: Annotated[
        float | None,
        arg(help="Draw among the likeliest tokens that together reach this.", help_behavior_hint="(default: all)"),
    ] = None
    min_p: Annotated[
        float | None,
        arg(help="Draw among tokens with this share of the likeliest's chance.", help_behavior_hint="(default: all)"),
    ] = None
    repetition_penalty: Annotated[float, arg(help="Above 1, tokens that were there already become less likely.")] = 1.0
    stop: Annotated[
        tuple[str, ...], arg(metavar="TEXT ...", help="Texts that end what is written, and are no part of it.")
    ] = ()
    seed: Annotated[int, arg(help="The same seed gives the same text.")] = 1
    int8: Int8 = False
    drafts: Drafts = False


@dataclass
class SampleOptions:
    """Options of `sample`."""

    run: ModelPath
    prompt: Annotated[str, arg(metavar="TEXT", help="The beginning that the model continues.")] = "Once upon a time"
    writing: Annotated[WritingOptions, arg(name="")] = field(default_factory=WritingOptions)
    stage: Annotated[
        str | None,
        arg(metavar="STAGE", help="Whose model, such as finetune.", help_behavior_hint="(default: pretrain)"),
    ] = None


@dataclass
class ChatOptions:
    """Options of `chat`."""

    run: ModelPath
    writing: Annotated[WritingOptions, arg(name="")] = field(default_factory=lambda: WritingOptions(temperature=0.0))
    stage: Annotated[
        str | None,
        arg(metavar="STAGE", help="Whose model, such as finetune.", help_behavior_hint="(default: the last tuned)"),
    ] = None


@dataclass
class ServeOptions:
    """Options of `serve`. The environment variable HORNBOOK_API_KEY sets the key that clients must send."""

    run: ModelPath
    host: Annotated[str, arg(help="The address to listen on; the default is reached from this machine alone.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, arg(help="The port to listen on.")] = 8000
    rows: Annotated[int, arg(help="Answers written at a time.")] = 16
    queue: Annotated[int, arg(help="Answers that may wait; more are refused with status 429.")] = 64
    max_tokens: Annotated[int, arg(help="Tokens of an answer, at most.")] = 2048
    max_body_bytes: Annotated[int, arg(help="Bytes of a request, at most.")] = 1_000_000
    seconds: Annotated[float, arg(help="Until an answer must be done; later it ends with status 504.")] = 120.0
    context: Annotated[
        int | None,
        arg(
            metavar="TOKENS",
            help="Of a prompt and its answer together; fewer take less memory.",
            help_behavior_hint="(default: the model's)",
        ),
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], arg(help="What to compute in; auto: bfloat16 where it is fast.")
    ] = "auto"
    int8: Int8 = False
    drafts: Drafts = False
    stage: Annotated[
        str | None,
        arg(metavar="STAGE", help="Whose model, such as finetune.", help_behavior_hint="(default: the last tuned)"),
    ] = None


@dataclass
class EvalOptions:
    """Options of `eval`. With neither --tasks, --text nor --harness a run is asked the storyworld's questions."""

    run: ModelPath
    json: Annotated[bool, arg(help="Print JSON, for machines.")] = False
    text: Annotated[
        Path | None,
        arg(metavar="FILE", help="Measure bits per byte of this text instead.", help_behavior_hint=""),
    ] = None
    harness: Annotated[
        str | None,
        arg(
            metavar="NAME,FILE",
            help="Tasks of EleutherAI's lm-eval, or files of such tasks (.yaml); needs hornbook[harness].",
            help_behavior_hint="",
        ),
    ] = None
    picture: Annotated[
        Path | None,
        arg(metavar="FILE", help="Also draw the scores of --tasks here, as .svg or .png.", help_behavior_hint=""),
    ] = None
    int8: Int8 = False
    tasks: Annotated[
        str | None,
        arg(
            metavar="NAME,NAME",
            help="Published benchmarks to ask, from files in --data; all: those that are there.",
            help_behavior_hint="(default: the storyworld's questions)",
        ),
    ] = None
    data: Annotated[Path, arg(metavar="DIR", help="The folder of the benchmarks' files.")] = Path("benchmarks-data")
    limit: Annotated[
        int | None, arg(help="Items of each task, taken evenly from its file.", help_behavior_hint="(default: all)")
    ] = None
    shots: Annotated[
        int | None, arg(help="Examples before each question.", help_behavior_hint="(default: as published)")
    ] = None
    against: Annotated[
        Path | None,
        arg(metavar="RUN", help="Another run or model to compare with, by a paired test.", help_behavior_hint=""),
    ] = None
    to: Annotated[
        Path | None,
        arg(metavar="FILE", help="Also write the scores and every item's judgement here.", help_behavior_hint=""),
    ] = None


@dataclass
class PredictOptions:
    """Options of `predict`."""

    run: ModelPath
    texts: Annotated[tuple[str, ...], Positional, arg(metavar="TEXT", help="The texts to tell the class of.")]
    json: Annotated[bool, arg(help="Print JSON, for machines.")] = False


@dataclass
class ExportOptions:
    """Options of `export`."""

    run: RunPath
    to: Annotated[Path, arg(metavar="DIR", help="The folder to write.")]
    format: Annotated[
        Literal["hf", "gguf"],
        arg(help="hf: the layout that Hugging Face's transformers loads. gguf: one file for llama.cpp."),
    ] = "hf"


@dataclass
class ShowOptions:
    """Options of `show`."""

    run: RunPath
    tokens: Annotated[bool, arg(help="Show a few training rows token by token, and what is learned of them.")] = False


@dataclass
class WorldOptions:
    """Options of `world`."""

    recipe: RecipePath
    to: Annotated[Path, arg(metavar="DIR", help="The folder to write.")]


@dataclass
class BookOptions:
    """Options of `book`."""

    run: Annotated[
        Path | None,
        Positional,
        arg(
            metavar="RUN",
            help="The folder of a run, such as runs/quickstart.",
            help_behavior_hint="(default: the recorded run that comes with Hornbook)",
        ),
    ] = None
    output: Annotated[
        Path | None,
        arg(aliases=["-o"], metavar="FILE", help="The file to write.", help_behavior_hint="(default: book.pdf)"),
    ] = None
    only: Annotated[
        Literal["results"] | None,
        arg(help="The report of the run alone, some ten pages.", help_behavior_hint="(default: the whole book)"),
    ] = None
    format: Annotated[Literal["pdf", "md"], arg(help="md: Markdown, with --only results.")] = "pdf"
    paper: Annotated[Literal["a4", "us-letter"], arg(help="The size of the pages.")] = "a4"
