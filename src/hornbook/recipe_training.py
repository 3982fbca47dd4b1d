"""The sections of a recipe for what is trained: pretraining, fine-tuning and what comes after."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from hornbook.recipe_fields import LoraTarget, Section, Texts, Trackers, Weights, as_tuple


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
    compile: bool = Field(True, description="Compile the layers: some seconds at first, faster steps after.")
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
    targets: Annotated[tuple[LoraTarget, ...], BeforeValidator(as_tuple)] = Field(
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
    compile: bool = Field(False, description="Compile the layers: some seconds at first, faster steps after.")
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
    compile: bool = Field(False, description="Compile the layers: some seconds at first, faster steps after.")
    skip_spikes: bool = Field(
        False, description="Skip steps of unusual loss. Here it lies around zero, and what is usual says little."
    )
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
    compile: bool = Field(False, description="Compile the layers: some seconds at first, faster steps after.")
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
    balance: bool = Field(
        False,
        description="Set apart as many texts of each class for validation and test, so that guessing is right no more "
        "often than chance. All others are trained on.",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: each class weighs as much as any other, however many texts it has."
    )
    train_layers: int | None = Field(
        None,
        ge=0,
        description="How many of the last layers are trained, beside the final norm and the head. Default: everything.",
    )
    lora: LoraSection | None = Field(None, description="Train low-rank adapters instead of whole layers.")
