"""The sections of a recipe from the text to the model: what is read, cleaned and cut, and the shape that learns it."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hornbook.filter_presets import with_presets
from hornbook.recipe_fields import (
    CountThreshold,
    Language,
    Presets,
    Section,
    SpecialTokens,
    Texts,
    Threshold,
    Weights,
    off_as_none,
    rule,
)


class StoryworldSection(Section):
    """The embedded world: how much of each kind of text it writes."""

    seed: int = Field(1, ge=0, description="Seed of the world; the same seed writes the same bytes everywhere.")
    stories: int = Field(20_000, ge=0, description="Stories written into the corpus.")
    echoes: int = Field(6_000, ge=0, description="Rows of words said twice, from which looking back is learned.")
    inventories: int = Field(
        2_000, ge=0, description="Lists, and what stands in them said again in another order, to learn looking up from."
    )
    still_lives: int = Field(6_000, ge=0, description="Stories in which nothing happens, to learn looking up from.")
    puzzles: int = Field(400, ge=0, description="Solved puzzles of order, days and rules written into the corpus.")
    sums: int = Field(600, ge=0, description="Solved sums and differences written into the corpus.")
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
    min_words: CountThreshold = rule("Fewest words (Gopher: 50).")
    max_words: CountThreshold = rule("Most words (Gopher: 100,000).")
    min_mean_word_length: Threshold = rule("Least mean length of words, in characters (Gopher: 3).")
    max_mean_word_length: Threshold = rule("Greatest mean length of words (Gopher: 10).")
    max_symbol_to_word_ratio: Threshold = rule("Most # for each word, and most ellipses (Gopher: 0.1).")
    max_bullet_line_fraction: Threshold = rule("Greatest share of lines that begin with a bullet (Gopher: 0.9).")
    max_ellipsis_line_fraction: Threshold = rule("Greatest share of lines that end with an ellipsis (Gopher: 0.3).")
    min_alphabetic_word_fraction: Threshold = rule("Least share of words and marks that have a letter (Gopher: 0.8).")
    min_stop_words: CountThreshold = rule("Fewest different stop words: the, be, to, of, ... (Gopher: 2).")
    max_duplicate_line_fraction: Threshold = rule("Greatest share of lines that repeat an earlier one (Gopher: 0.3).")
    max_duplicate_line_character_fraction: Threshold = rule("Greatest share of characters in such lines (Gopher: 0.2).")
    max_duplicate_paragraph_fraction: Threshold = rule("Greatest share of paragraphs that repeat one (Gopher: 0.3).")
    max_duplicate_paragraph_character_fraction: Threshold = rule(
        "Greatest share of characters in such paragraphs (Gopher: 0.2)."
    )
    max_top_2gram_character_fraction: Threshold = rule("Greatest share of the most frequent 2-gram (Gopher: 0.2).")
    max_top_3gram_character_fraction: Threshold = rule("Greatest share of the most frequent 3-gram (Gopher: 0.18).")
    max_top_4gram_character_fraction: Threshold = rule("Greatest share of the most frequent 4-gram (Gopher: 0.16).")
    max_duplicate_5gram_character_fraction: Threshold = rule("Greatest share of repeated 5-grams (Gopher: 0.15).")
    max_duplicate_6gram_character_fraction: Threshold = rule("Greatest share of repeated 6-grams (Gopher: 0.14).")
    max_duplicate_7gram_character_fraction: Threshold = rule("Greatest share of repeated 7-grams (Gopher: 0.13).")
    max_duplicate_8gram_character_fraction: Threshold = rule("Greatest share of repeated 8-grams (Gopher: 0.12).")
    max_duplicate_9gram_character_fraction: Threshold = rule("Greatest share of repeated 9-grams (Gopher: 0.11).")
    max_duplicate_10gram_character_fraction: Threshold = rule("Greatest share of repeated 10-grams (Gopher: 0.1).")
    c4_edit: Annotated[Literal["lines", "sentences"] | None, BeforeValidator(off_as_none)] = rule(
        "Leave out lines, or sentences, that C4 leaves out, before the text is judged (C4: lines).",
    )
    c4_line_end: Annotated[Literal["punctuation"] | None, BeforeValidator(off_as_none)] = rule(
        "What a line has to end with to stay in (C4: punctuation)."
    )
    c4_min_line_words: CountThreshold = rule("Fewest words of a line to stay in (C4: 3).")
    c4_max_line_word_length: CountThreshold = rule("Longest word of a line to stay in (C4: 1000).")
    min_sentences: CountThreshold = rule("Fewest sentences (C4: 5).")
    max_curly_brackets: CountThreshold = rule("Most opening curly brackets (C4: 0).")
    max_lorem_ipsum: CountThreshold = rule('Most occurrences of "lorem ipsum" (C4: 0).')
    min_punctuated_line_fraction: Threshold = rule("Least share of lines that end a sentence (FineWeb: 0.12).")
    max_short_line_fraction: Threshold = rule("Greatest share of lines up to 30 characters (FineWeb: 0.67).")
    max_repeated_line_character_fraction: Threshold = rule(
        "Greatest share of characters in repeated lines (FineWeb: 0.01)."
    )
    max_newline_to_word_ratio: Threshold = rule("Most newlines for each word (FineWeb: 0.3).")
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


_SMALLEST_VOCAB_SIZE = 263
"""256 bytes, the six special tokens that are always there, and one merge."""


class TokenizerSection(Section):
    """How text is cut into tokens."""

    vocab_size: int = Field(
        4096, ge=_SMALLEST_VOCAB_SIZE, description="Number of tokens: the 256 bytes, the merges and the special tokens."
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

    @property
    def least_vocab_size(self) -> int:
        """With room for the recipe's own special tokens."""
        return _SMALLEST_VOCAB_SIZE + len(set(self.special_tokens))


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
