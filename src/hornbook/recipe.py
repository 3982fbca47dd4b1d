"""The recipe: one typed description of a whole experiment, from raw text to exported model.

A recipe is a TOML file with one table for each section below. Every field has a default or must be given, and
says what it is for; the command line shows these sentences, and takes any field as a dotted flag. All
problems of a recipe are reported together, each with its place. No torch here: reading a recipe takes no
time.
"""

import copy
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hornbook.depth import with_depth
from hornbook.errors import UserError
from hornbook.filter_presets import with_presets
from hornbook.problems import problems_of
from hornbook.recipe_checks import problems_across_fields
from hornbook.toml_text import to_toml

SWITCHED_OFF = "off"


def _as_tuple(value: Any) -> Any:
    """TOML has lists where recipes have tuples, and a single text may stand for a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _off_as_none(value: Any) -> Any:
    """TOML has no null, so a rule is switched off by a word."""
    return None if value == SWITCHED_OFF else value


def _presets(value: Any) -> Any:
    """A word, or None, may stand for no preset at all."""
    return () if value in (None, "none", SWITCHED_OFF) else _as_tuple(value)


def _rule(description: str) -> Any:
    """A field that is off where neither the recipe nor its preset sets it.

    The default is the word and not None, so that a rule that was switched off is spelled out as such.
    """
    return Field(SWITCHED_OFF, validate_default=True, description=description)


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
SpecialTokens = Annotated[tuple[Annotated[str, Field(pattern=r"^\S+$")], ...], BeforeValidator(_as_tuple)]
Weights = Annotated[tuple[Annotated[float, Field(ge=0, le=1000)], ...], BeforeValidator(_as_tuple)]
Suites = Annotated[tuple[Literal["comprehension", "reasoning", "facts"], ...], BeforeValidator(_as_tuple)]
Trackers = Annotated[tuple[Literal["tensorboard", "trackio", "wandb"], ...], BeforeValidator(_as_tuple)]
LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Presets = Annotated[tuple[Literal["basic", "gopher", "c4", "fineweb"], ...], BeforeValidator(_presets)]
Threshold = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_off_as_none)]
Language = Annotated[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] | None, BeforeValidator(_off_as_none)]
CountThreshold = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_off_as_none)]


class Section(BaseModel):
    """What all sections share: fixed once made, no unknown names, no guessing of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class StoryworldSection(Section):
    """The embedded world: how much of each kind of text it writes."""

    seed: int = Field(1, ge=0, description="Seed of the world; the same seed writes the same bytes everywhere.")
    stories: int = Field(20_000, ge=0, description="Stories written into the corpus.")
    echoes: int = Field(6_000, ge=0, description="Rows of words said twice, from which looking back is learned.")
    still_lives: int = Field(6_000, ge=0, description="Stories in which nothing happens, to learn looking up from.")
    puzzles: int = Field(1_000, ge=0, description="Solved puzzles written into the corpus.")
    encyclopedia_passages: int = Field(2_000, ge=0, description="Passages that state the world's facts.")
    web_pages: int = Field(300, ge=0, description="Messy web pages in the corpus, for the cleaning to work on.")
    conversations: int = Field(8_000, ge=0, description="Conversations written for fine-tuning.")


class CleaningSection(Section):
    """Repairs made to every document; what is left out is as the preset has it."""

    preset: Literal["language_model", "classic", "none"] = Field(
        "language_model",
        description="language_model: repairs that keep case and punctuation. classic: small letters, plain "
        "punctuation and no special characters besides. none: only what is switched on here.",
    )
    repair_mojibake: bool | None = Field(
        None, description="Repair text that was decoded with the wrong encoding. Default: the preset's (on)."
    )
    unicode_form: Literal["nfc", "nfkc", "off"] | None = Field(
        None,
        description="Unicode's normal form: nfc composes characters, nfkc also replaces ligatures, full-width letters "
        "and the like by plain ones. Default: the preset's (nfc; nfkc in classic).",
    )
    remove_control_characters: bool | None = Field(
        None, description="Remove invisible, private and control characters. Default: the preset's (on)."
    )
    standardize_punctuation: bool | None = Field(
        None, description="Make quotes, dashes and ellipses plain ASCII. Default: the preset's (on in classic)."
    )
    remove_special_characters: bool | None = Field(
        None,
        description="Remove all but letters, digits, blanks and ordinary punctuation. "
        "Default: the preset's (on in classic).",
    )
    collapse_whitespace: bool | None = Field(
        None, description="Shorten runs of blanks and of empty lines to one. Default: the preset's (on)."
    )
    lowercase: bool | None = Field(
        None, description="Turn all letters into small ones. Default: the preset's (on in classic)."
    )
    replace_personal_data: bool | None = Field(
        None, description="Mask e-mail addresses, IP addresses, phone numbers. Default: the preset's (on)."
    )


class FilterSection(Section):
    """Quality rules that a document has to pass; "off" switches a rule off.

    The preset names sets of published rules, with their published thresholds; a later one wins over an
    earlier one, and any field that is given wins over all of them. The basic set is Gopher's, loosened so
    that short texts pass: the published one is meant for pages of 50 words and more.
    """

    preset: Presets = Field(
        ("basic",),
        description="Sets of rules: basic, gopher, c4, fineweb; none for no rule but those given. Several add up.",
    )
    min_words: CountThreshold = _rule("Fewest words (Gopher: 50).")
    max_words: CountThreshold = _rule("Most words (Gopher: 100,000).")
    min_mean_word_length: Threshold = _rule("Least mean length of words, in characters (Gopher: 3).")
    max_mean_word_length: Threshold = _rule("Greatest mean length of words (Gopher: 10).")
    max_symbol_to_word_ratio: Threshold = _rule("Most # for each word, and most ellipses (Gopher: 0.1).")
    max_bullet_line_fraction: Threshold = _rule("Greatest share of lines that begin with a bullet (Gopher: 0.9).")
    max_ellipsis_line_fraction: Threshold = _rule("Greatest share of lines that end with an ellipsis (Gopher: 0.3).")
    min_alphabetic_word_fraction: Threshold = _rule("Least share of words and marks that have a letter (Gopher: 0.8).")
    min_stop_words: CountThreshold = _rule("Fewest different stop words: the, be, to, of, ... (Gopher: 2).")
    max_duplicate_line_fraction: Threshold = _rule("Greatest share of lines that repeat an earlier one (Gopher: 0.3).")
    max_duplicate_line_character_fraction: Threshold = _rule(
        "Greatest share of characters in such lines (Gopher: 0.2)."
    )
    max_duplicate_paragraph_fraction: Threshold = _rule("Greatest share of paragraphs that repeat one (Gopher: 0.3).")
    max_duplicate_paragraph_character_fraction: Threshold = _rule(
        "Greatest share of characters in such paragraphs (Gopher: 0.2)."
    )
    max_top_2gram_character_fraction: Threshold = _rule("Greatest share of the most frequent 2-gram (Gopher: 0.2).")
    max_top_3gram_character_fraction: Threshold = _rule("Greatest share of the most frequent 3-gram (Gopher: 0.18).")
    max_top_4gram_character_fraction: Threshold = _rule("Greatest share of the most frequent 4-gram (Gopher: 0.16).")
    max_duplicate_5gram_character_fraction: Threshold = _rule("Greatest share of repeated 5-grams (Gopher: 0.15).")
    max_duplicate_6gram_character_fraction: Threshold = _rule("Greatest share of repeated 6-grams (Gopher: 0.14).")
    max_duplicate_7gram_character_fraction: Threshold = _rule("Greatest share of repeated 7-grams (Gopher: 0.13).")
    max_duplicate_8gram_character_fraction: Threshold = _rule("Greatest share of repeated 8-grams (Gopher: 0.12).")
    max_duplicate_9gram_character_fraction: Threshold = _rule("Greatest share of repeated 9-grams (Gopher: 0.11).")
    max_duplicate_10gram_character_fraction: Threshold = _rule("Greatest share of repeated 10-grams (Gopher: 0.1).")
    c4_edit: Annotated[Literal["lines", "sentences"] | None, BeforeValidator(_off_as_none)] = _rule(
        "Leave out lines, or sentences, that C4 leaves out, before the text is judged (C4: lines).",
    )
    c4_line_end: Annotated[Literal["punctuation"] | None, BeforeValidator(_off_as_none)] = _rule(
        "What a line has to end with to stay in (C4: punctuation)."
    )
    c4_min_line_words: CountThreshold = _rule("Fewest words of a line to stay in (C4: 3).")
    c4_max_line_word_length: CountThreshold = _rule("Longest word of a line to stay in (C4: 1000).")
    min_sentences: CountThreshold = _rule("Fewest sentences (C4: 5).")
    max_curly_brackets: CountThreshold = _rule("Most opening curly brackets (C4: 0).")
    max_lorem_ipsum: CountThreshold = _rule('Most occurrences of "lorem ipsum" (C4: 0).')
    min_punctuated_line_fraction: Threshold = _rule("Least share of lines that end a sentence (FineWeb: 0.12).")
    max_short_line_fraction: Threshold = _rule("Greatest share of lines up to 30 characters (FineWeb: 0.67).")
    max_repeated_line_character_fraction: Threshold = _rule(
        "Greatest share of characters in repeated lines (FineWeb: 0.01)."
    )
    max_newline_to_word_ratio: Threshold = _rule("Most newlines for each word (FineWeb: 0.3).")
    language: Language = Field(None, description="Keep only documents in this language: its ISO 639 code, en for one.")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        return with_presets(given)


class CorpusSection(Section):
    """Where the text comes from, and how it is curated."""

    source: Texts = Field(
        ("storyworld",),
        min_length=1,
        description="Where the text comes from: storyworld, files:PATH_OR_GLOB (txt, jsonl, json, parquet, html, "
        "warc, wet; also .gz and .zst), a URL of such files (s3, gs, az, https, hf) or hf://datasets/OWNER/NAME. "
        "Several are read one after the other.",
    )
    weights: Weights = Field(
        (),
        description="How often each document of a source is taken, on average, one number for each source: 2 is "
        "twice, 0.5 takes a half. Default: once.",
    )
    validation_source: Texts = Field(
        (),
        description="Text for validation alone, in the same forms. Default: a part of the source.",
    )
    validation_fraction: float = Field(
        0.01, gt=0, lt=0.5, description="Share of the documents set apart for validation."
    )
    text_field: str = Field("text", min_length=1, description="Name of the field or column that holds the text.")
    cleaning: CleaningSection = Field(CleaningSection(), description="Repairs made to every document.")
    filters: FilterSection = Field(FilterSection(), description="Quality rules; off switches one off.")
    deduplicate: Literal["none", "exact", "minhash"] = Field(
        "minhash",
        description="Which duplicates to drop: none, exact ones (the same words), or with minhash near ones, too, so "
        "that no document of the validation split has its like in the training split.",
    )
    deduplicate_threshold: float = Field(
        0.75,
        ge=0.5,
        le=1,
        description="Share of all runs of five words of two documents that both have (Jaccard), from which minhash "
        "takes them for near-duplicates.",
    )
    decontaminate_against: Texts = Field(
        (),
        description="Benchmarks that the corpus must not give away, beside the suites of the evaluation: "
        "files:PATH_OR_GLOB (jsonl, csv; also .gz), each row an item.",
    )
    engine: Literal["local", "ray"] = Field(
        "local",
        description="Where the corpus is made: on all cores of this machine, or on a Ray cluster (the one that "
        "RAY_ADDRESS names; needs the extra hornbook[cluster]). The result is the same.",
    )


class TokenizerSection(Section):
    """How text is cut into tokens."""

    vocab_size: int = Field(
        4096, ge=263, description="Number of tokens: the 256 bytes, the merges and the special tokens."
    )
    split_pattern: Literal["gpt2", "gpt4", "llama3", "qwen"] = Field(
        "llama3", description="Whose pattern cuts text into words before the merges are learned."
    )
    special_tokens: SpecialTokens = Field(
        (),
        description="Special tokens beside those that are always there: <|endoftext|>, <|pad|>, and <|user|>, "
        "<|assistant|>, <|system|>, <|end|> of the chat. Text that spells one stays text.",
    )
    load_from: str | None = Field(
        None,
        min_length=1,
        description="A published tokenizer to take instead of learning one: a tokenizer.json, or a folder that has one "
        "or GPT-2's vocab.bpe and encoder.json. It keeps its ids; special tokens that it lacks come after them. "
        "vocab_size then only serves the plan. Default: learn one.",
    )


class RopeScalingSection(Section):
    """How rotary positions are stretched, so that a model can take longer texts than it was trained on."""

    type: Literal["llama3", "yarn"] = Field("llama3", description="Whose rule: Llama 3.1's, or YaRN's.")
    factor: float = Field(8.0, ge=1, description="How many times as long the texts become.")
    original_max_seq_len: int = Field(8192, gt=1, description="Longest text that the model was trained on before.")
    low_freq_factor: float = Field(
        1.0, gt=0, description="llama3: pairs that turn fewer times than this within the original length are slowed."
    )
    high_freq_factor: float = Field(
        4.0, gt=0, description="llama3: those that turn more often than this within it stay as they are."
    )
    beta_fast: float = Field(32.0, gt=0, description="yarn: the same limit as high_freq_factor, by pairs.")
    beta_slow: float = Field(1.0, gt=0, description="yarn: the same limit as low_freq_factor, by pairs.")
    attention_factor: float | None = Field(
        None, gt=0, description="yarn: what queries and keys are multiplied with. Default: 1 + 0.1 ln(factor)."
    )


class ModelSection(Section):
    """The shape of the model."""

    depth: int | None = Field(
        None,
        gt=0,
        description="One dial for a whole run: gives all shapes, rates, batch and tokens that are not set.",
    )
    preset: Literal["gpt2", "llama", "llama3", "qwen3"] = Field(
        "llama", description="Whose kind of block it is built of."
    )
    n_layers: int = Field(4, gt=0, description="Number of blocks.")
    d_model: int = Field(128, gt=0, description="Width of the residual stream.")
    n_heads: int = Field(4, gt=0, description="Number of attention heads.")
    n_kv_heads: int | None = Field(
        None, gt=0, description="Number of key and value heads, shared among the heads. Default: n_heads."
    )
    head_dim: int | None = Field(None, gt=0, description="Width of a head. Default: d_model / n_heads.")
    d_ff: int | None = Field(None, gt=0, description="Width of the feed-forward layer. Default: the preset's.")
    max_seq_len: int = Field(256, gt=1, description="Longest text that the model can take, in tokens.")
    sliding_window: int | None = Field(
        None,
        gt=0,
        description="Tokens that a layer with a sliding window sees, the last ones (qwen3 only). Default: all.",
    )
    full_attention_every: int = Field(
        4, gt=0, description="With a sliding window, each layer of this number sees everything nevertheless."
    )
    rope_theta: float | None = Field(
        None, gt=1, description="Base of the rotary positions' wavelengths. Default: the preset's."
    )
    rope_scaling: RopeScalingSection | None = Field(
        None, description="How rotary positions are stretched for longer texts; left out, they are not."
    )
    attention_bias: bool | None = Field(
        None, description="Give attention's projections a bias. Default: the preset's (on in gpt2 alone)."
    )
    mlp_bias: bool | None = Field(
        None, description="Give the feed-forward's projections a bias. Default: the preset's (on in gpt2 alone)."
    )
    tie_embeddings: bool = Field(True, description="Use one matrix for the embedding and the output head.")


class TrainingSection(Section):
    """What pretraining and fine-tuning share."""

    tokens: int = Field(gt=0, description="Tokens to train on, padding counted: steps x global_batch_tokens.")
    global_batch_tokens: int = Field(gt=0, description="Tokens for each step; a multiple of row_tokens.")
    row_tokens: int | None = Field(None, gt=1, description="Tokens in a row. Default: model.max_seq_len.")
    order: Literal["shuffled", "corpus"] = Field(
        "shuffled",
        description="Order of the documents. corpus: the first pass takes them in the order of the corpus, "
        "where some of them prepare for others; the passes after it are shuffled.",
    )
    micro_batch_size: int | None = Field(
        None,
        gt=0,
        description="Rows computed at once. It changes memory and speed, never the gradient. "
        "Default: the most that fit.",
    )
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="muon (for the matrices of the blocks, AdamW for the rest) or adamw for all."
    )
    lr: float = Field(3e-3, gt=0, description="Peak learning rate of AdamW.")
    muon_lr: float = Field(0.02, gt=0, description="Peak learning rate of Muon.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay of the matrices.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay of the mean gradient.")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's decay of the mean squared gradient.")
    warmup_fraction: float = Field(0.02, ge=0, le=1, description="Share of the steps spent warming up.")
    schedule: Literal["cosine", "wsd", "constant"] = Field(
        "wsd",
        description="Learning rate after the warm-up: cosine, wsd (constant, then a decay) or constant.",
    )
    decay_fraction: float = Field(0.5, ge=0, le=1, description="Share of the steps spent in wsd's decay.")
    final_lr_fraction: float = Field(0.0, ge=0, le=1, description="Learning rate at the end, over the peak.")
    clip_norm: float = Field(1.0, gt=0, description="Largest norm of the gradient; longer ones are shortened.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Type computed in. auto: bfloat16 where the hardware has it. Weights stay float32.",
    )
    compile: bool = Field(True, description="Compile the model: half a minute at first, faster steps after.")
    recompute: Literal["none", "selective", "full"] = Field(
        "none",
        description="What the backward pass computes again, for less memory and more time: nothing, all but the "
        "results of large products (selective), or everything within a layer (full).",
    )
    skip_spikes: bool = Field(
        True,
        description="Leave out steps whose loss and gradient both lie far above those of the last 128; where they "
        "stay there, go back to the last good checkpoint and on with other data.",
    )
    checkpoint_interval_steps: int = Field(200, gt=0, description="Steps between two checkpoints.")
    keep_checkpoints: int = Field(2, gt=0, description="Number of latest checkpoints to keep.")
    milestone_interval_steps: int | None = Field(
        None, gt=0, description="Steps between two checkpoints that are kept for good. Default: none is."
    )
    tracking: Trackers = Field(
        (),
        description="Where the figures of each step go besides metrics.jsonl: tensorboard, trackio, wandb (each from "
        "a package of its own; pip install 'hornbook[tracking]' brings tensorboard).",
    )
    evaluation_interval_steps: int = Field(100, gt=0, description="Steps between two validations.")
    evaluation_rows: int = Field(256, gt=0, description="Rows of each validation.")


class PretrainSection(TrainingSection):
    """Training on the corpus: predict the next token."""

    init_from: str | None = Field(
        None,
        min_length=1,
        description="Folder of a GPT-2, Llama or Qwen3 model in Hugging Face's layout to go on from, with its "
        "tokenizer. Default: a new model.",
    )


class LoraSection(Section):
    """Low-rank adapters: what is trained instead of the matrices they are added to."""

    rank: int = Field(8, gt=0, description="Rank of each adapter.")
    alpha: float = Field(16.0, gt=0, description="An adapter counts alpha / rank times.")
    targets: Annotated[tuple[LoraTarget, ...], BeforeValidator(_as_tuple)] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Matrices of each layer that get one; those that the model does not have are passed over.",
    )


class FinetuneSection(TrainingSection):
    """Training on conversations, with the loss on the answers alone."""

    init_from: str | None = Field(
        None,
        min_length=1,
        description="Folder of a GPT-2, Llama or Qwen3 model in Hugging Face's layout to start from; then the recipe "
        "has no section pretrain. Default: the model that pretraining makes.",
    )
    source: Texts = Field(
        ("storyworld",),
        min_length=1,
        description="Where the conversations come from: storyworld, files:PATH (json or jsonl with instruction, input, "
        "output; with messages; or with conversations) or hf://datasets/OWNER/NAME.",
    )
    weights: Weights = Field(
        (),
        description="How often each conversation of a source is taken, on average, one number for each source: 2 is "
        "twice, 0.5 takes a half. Default: once.",
    )
    validation_fraction: float = Field(
        0.02, gt=0, lt=0.5, description="Share of the conversations set apart for validation."
    )
    patience: int | None = Field(
        None,
        gt=0,
        description="Stop after this many validations without a better one, and keep the model of the best. "
        "Default: train to the end.",
    )
    sample_answers: int = Field(
        3, ge=0, description="Answers to conversations of the validation that are shown at each validation."
    )
    lora: LoraSection | None = Field(None, description="Train low-rank adapters instead of the whole model.")


class PreferenceSection(TrainingSection):
    """Training on pairs of a better and a worse answer (DPO). A row holds one answer with its prompt."""

    optimizer: Literal["muon", "adamw"] = Field("adamw", description="adamw for all, or muon for the matrices.")
    lr: float = Field(1e-4, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of the matrices.")
    warmup_fraction: float = Field(0.1, ge=0, le=1, description="Share of the steps spent warming up.")
    compile: bool = Field(False, description="Compile the model: half a minute at first, faster steps after.")
    init_from: str | None = Field(
        None, min_length=1, description="As in finetune. Default: the model that the stage before makes."
    )
    source: Texts = Field(
        ("storyworld",),
        min_length=1,
        description="Where the pairs come from: storyworld, files:PATH (json or jsonl with chosen and rejected, and a "
        "prompt in any of the common forms) or hf://datasets/OWNER/NAME.",
    )
    pairs: int = Field(4000, gt=0, description="Pairs that the storyworld writes.")
    validation_fraction: float = Field(0.1, gt=0, lt=0.5, description="Share of the pairs set apart for validation.")
    beta: float = Field(0.1, gt=0, description="How strongly the distance from the model at the start counts.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Probability that a pair is the wrong way round (conservative DPO)."
    )
    length_normalised: bool = Field(False, description="Compare answers per token, so that long ones do not gain.")
    lora: LoraSection | None = Field(None, description="Train low-rank adapters instead of the whole model.")


class ReinforceSection(TrainingSection):
    """Training on answers of the model's own, by whether they are right (GRPO). A row holds one answer."""

    optimizer: Literal["muon", "adamw"] = Field("adamw", description="adamw for all, or muon for the matrices.")
    lr: float = Field(1e-4, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of the matrices.")
    warmup_fraction: float = Field(0.1, ge=0, le=1, description="Share of the steps spent warming up.")
    schedule: Literal["cosine", "wsd", "constant"] = Field("constant", description="Learning rate after the warm-up.")
    compile: bool = Field(False, description="Compile the model: half a minute at first, faster steps after.")
    init_from: str | None = Field(
        None, min_length=1, description="As in finetune. Default: the model that the stage before makes."
    )
    source: Texts = Field(
        ("storyworld",),
        min_length=1,
        description="Where the prompts come from: storyworld (its puzzles), files:PATH (json or jsonl with prompt or "
        "question, and the answer) or hf://datasets/OWNER/NAME.",
    )
    prompts: int = Field(4000, gt=0, description="Puzzles that the storyworld writes.")
    validation_prompts: int = Field(100, gt=0, description="Prompts set apart for validation.")
    answers_per_prompt: int = Field(8, gt=1, description="Answers drawn for each prompt: the group.")
    answer_tokens: int = Field(24, gt=1, description="Longest answer; one that does not end in it gets no reward.")
    updates_per_rollout: int = Field(1, gt=0, description="Steps made with the same answers before new ones are drawn.")
    clip_range: float = Field(0.2, gt=0, lt=1, description="How far a probability may move in steps on one rollout.")
    kl_beta: float = Field(0.02, ge=0, description="How strongly the distance from the model at the start counts.")
    average: Literal["answers", "tokens"] = Field(
        "answers", description="Average over the tokens of each answer first (GRPO), or over all tokens alike (DAPO)."
    )
    lora: LoraSection | None = Field(None, description="Train low-rank adapters instead of the whole model.")


class ClassifySection(TrainingSection):
    """Training a head that tells the class of a text from its last token."""

    optimizer: Literal["muon", "adamw"] = Field("adamw", description="adamw for all, or muon for the matrices.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    warmup_fraction: float = Field(0.1, ge=0, le=1, description="Share of the steps spent warming up.")
    compile: bool = Field(False, description="Compile the model: half a minute at first, faster steps after.")
    init_from: str | None = Field(
        None, min_length=1, description="As in finetune. Default: the model that pretraining makes."
    )
    source: Texts = Field(
        (),
        validate_default=True,
        min_length=1,
        description="Where the texts come from: files:PATH (json or jsonl with the fields below; tsv or csv with a "
        "header that names them, or with the label first and the text second) or hf://datasets/OWNER/NAME.",
    )
    text_field: str = Field("text", min_length=1, description="Name of the field that holds the text.")
    label_field: str = Field("label", min_length=1, description="Name of the field that holds the class.")
    validation_fraction: float = Field(0.1, gt=0, lt=0.5, description="Share of the texts set apart for validation.")
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="Share of the texts set apart for the final test.")
    balance: bool = Field(False, description="Take as many texts of each class as the rarest has, by chance.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: each class weighs as much as any other, however many texts it has."
    )
    train_layers: int | None = Field(
        None,
        ge=0,
        description="How many of the last layers are trained, beside the final norm and the head. Default: everything.",
    )
    lora: LoraSection | None = Field(None, description="Train low-rank adapters instead of whole layers.")


class EvaluateSection(Section):
    """What is asked of the model, before and after fine-tuning."""

    suites: Suites = Field(
        ("comprehension", "reasoning", "facts"), description="Suites of the storyworld's questions to ask."
    )
    questions_per_suite: int = Field(200, gt=0, description="Questions of each suite.")
    sample_prompts: Texts = Field(("Once upon a time",), description="Beginnings for the model to continue.")
    sample_tokens: int = Field(160, gt=0, description="Tokens of each continuation, at most.")
    sample_temperature: float = Field(0.8, ge=0, description="0 takes the likeliest token, 1 draws as predicted.")


class ExportSection(Section):
    """The form in which the model leaves."""

    format: Literal["hf", "gguf"] = Field(
        "hf", description="hf: the layout that Hugging Face's transformers loads. gguf: one file for llama.cpp."
    )


TRAINING_STAGES = ("pretrain", "finetune", "preference", "reinforce", "classify")
TrainedSection = PretrainSection | FinetuneSection | PreferenceSection | ReinforceSection | ClassifySection


class Recipe(Section):
    """A whole experiment."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the run's folder: letters, digits, . _ and -.",
    )
    description: str = Field("", description="What this recipe is for, in a sentence.")
    seed: int = Field(1, ge=0, description="Seed of everything random but the storyworld.")
    storyworld: StoryworldSection = Field(StoryworldSection(), description="The embedded world.")
    corpus: CorpusSection = Field(CorpusSection(), description="Where the text comes from.")
    tokenizer: TokenizerSection = Field(TokenizerSection(), description="How text is cut into tokens.")
    model: ModelSection = Field(ModelSection(), description="The shape of the model.")
    pretrain: PretrainSection | None = Field(
        None, description="Training on the corpus; left out only where a later init_from names a model."
    )
    finetune: FinetuneSection | None = Field(None, description="Training on conversations; may be left out.")
    preference: PreferenceSection | None = Field(None, description="Training on pairs of answers; may be left out.")
    reinforce: ReinforceSection | None = Field(None, description="Training on rewards; may be left out.")
    classify: ClassifySection | None = Field(None, description="Training a classifier; may be left out.")
    evaluate: EvaluateSection = Field(EvaluateSection(), description="What is asked of the model.")
    export: ExportSection = Field(ExportSection(), description="The form in which the model leaves.")

    @property
    def origin(self) -> str | None:
        """The folder of the model that training goes on from, or None where it begins with a new one."""
        return next((section.init_from for section in self.training_sections.values() if section.init_from), None)

    @property
    def training_sections(self) -> "dict[str, TrainedSection]":
        """The sections of the training stages that this recipe has, by name, in the order of the stages."""
        sections = {name: getattr(self, name) for name in TRAINING_STAGES}
        return {name: section for name, section in sections.items() if section is not None}


def load_recipe(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe, with some fields set to other values: {"pretrain.lr": 3e-3}.

    Raises UserError with one line for each problem of the file and of the overrides, all of them at once.
    """
    overrides = overrides or {}
    table = _read_toml(Path(path))
    for name, value in overrides.items():
        _set(table, name, value)
    recipe, problems = _validate(table)
    if problems:
        lines = [f"{f'--{name}' if name in overrides else f'{path}: {name}'}: {what}" for name, what in problems]
        raise UserError("\n".join(lines))
    return recipe


def recipe_to_toml(recipe: Recipe) -> str:
    """The recipe with every field spelled out; `load_recipe` gives it back as it was."""
    return to_toml(_spelled_out(recipe))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}). Give the path of a recipe.") from None
    except ValueError as problem:
        raise UserError(f"{path}: is not valid TOML: {problem}") from None


def _set(table: dict[str, Any], name: str, value: Any) -> None:
    *sections, field = name.split(".")
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):  # the file's own mistake, reported by the validation
            return
        table = inner
    table[field] = value


def _validate(table: dict[str, Any]) -> tuple[Recipe, list[tuple[str, str]]]:
    """The recipe, and every problem as (dotted name, what is wrong).

    Where some fields are wrong, the checks across fields still run, on a copy with stand-ins for the wrong
    ones. A check is reported only if all the fields it looks at were right.
    """
    problems: list[tuple[str, str]] = []
    table = with_depth(table, TokenizerSection().vocab_size)
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        problems = problems_of(error, Recipe)
        recipe = Recipe.model_validate(_with_stand_ins(table, [detail["loc"] for detail in error.errors()]))
    for names, what in problems_across_fields(recipe):
        if not any(f"{name}.".startswith(f"{wrong}.") for name in names for wrong, _ in problems):
            problems.append((names[0], what))
    return recipe, problems


def _with_stand_ins(table: dict[str, Any], wrong_places: list[tuple[Any, ...]]) -> dict[str, Any]:
    """A copy of a table that validates: without the wrong fields, and with all that have no default."""
    mended = copy.deepcopy(table)
    for place in wrong_places:
        inner = mended
        for part in place[:-1]:
            if isinstance(inner.get(part), dict):
                inner = inner[part]
            else:  # an entry of a list: the whole list goes
                inner.pop(part, None)
        inner.pop(place[-1], None)
    needed = {"tokens": 1, "global_batch_tokens": 1}
    for name in TRAINING_STAGES:
        if name in mended:
            mended[name] = needed | ({"source": ("files:",)} if name == "classify" else {}) | mended[name]
    return {"name": "stand-in"} | mended


def _spelled_out(section: Section) -> dict[str, Any]:
    """The section as a table, with None spelled as the word for it wherever None is not the default."""
    table: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            table[name] = _spelled_out(value)
        elif value is None and field.default is not None:
            table[name] = SWITCHED_OFF
        else:
            table[name] = value
    return table
