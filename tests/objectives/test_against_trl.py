"""Loss and gradients of fine-tuning, DPO and GRPO are those of TRL, on the same small Llama and the same batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hornbook.batching.packing import Batch
from hornbook.model.config import config_from_recipe
from hornbook.model.huggingface import from_hugging_face, load_pretrained, save_pretrained
from hornbook.model.init import init_weights
from hornbook.model.transformer import Transformer
from hornbook.objectives.answers import Answer, answer_batch, answer_tensors
from hornbook.objectives.log_probabilities import token_log_probabilities
from hornbook.objectives.next_token import NextToken
from hornbook.objectives.policy import GroupRelativePolicy, RolloutBatch, group_advantages, token_weights
from hornbook.objectives.preference import DirectPreference, PairBatch
from hornbook.recipe_data import ModelSection
from hornbook.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
ROW_TOKENS = 16
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def trl() -> Any:
    return pytest.importorskip("trl", reason="TRL is not installed, so it cannot judge")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one shape, and a tokenizer, as transformers reads them."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = Tokenizer.train(["the cat sat on the mat with a hat"] * 9, 280, "llama3")
    config = config_from_recipe(ModelSection(n_layers=2, d_model=32, n_heads=2, max_seq_len=32), tokenizer.vocab_size)
    for name, seed in (("policy", 1), ("reference", 2)):
        model = Transformer(config)
        init_weights(model, seed)
        save_pretrained(model, folder / name, tokenizer.end_of_text_id, tokenizer.pad_id)
        tokenizer.save(folder / name)
    return folder


def ours(folder: Path, name: str) -> Transformer:
    return load_pretrained(folder / name)


def theirs(folder: Path, name: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    """Prompts of one length, because TRL pads them on the left; answers of several."""
    generator = torch.Generator().manual_seed(3)

    def draw(count: int) -> list[int]:
        return torch.randint(10, 250, (count,), generator=generator).tolist()

    prompts = [draw(4) for _ in range(2)]
    return [Answer(prompts[row // 4], draw(length)) for row, length in enumerate([3, 5, 1, 4, 7, 2, 6, 3])]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def check(model: Transformer, loss: torch.Tensor, their_model: Any, their_loss: torch.Tensor) -> None:
    """Losses and all gradients agree, ours under their names."""
    loss.backward()
    their_loss.backward()
    torch.testing.assert_close(loss, their_loss.detach(), rtol=TOLERANCE, atol=TOLERANCE)
    their_gradients = from_hugging_face(gradients(their_model), model.config)
    our_gradients = gradients(model)
    assert set(our_gradients) == set(their_gradients)
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=TOLERANCE, atol=TOLERANCE, msg=name)


def their_trainer(kind: Any, config: Any, folder: Path, rows: list[dict[str, Any]], tmp_path: Path, **more: Any) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    options = more.pop("options", {})
    arguments = config(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, **options)
    model = theirs(folder, "policy")
    dataset = Dataset.from_list(rows)
    return kind(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer, **more)


def padded(answers: list[Answer], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt and answer in rows, and which tokens are of the answer."""
    batch = answer_batch(answers, ROW_TOKENS, pad_id)
    places = torch.arange(ROW_TOKENS)
    lengths = torch.tensor([len(answer) for answer in answers])[:, None]
    return batch.input_ids, ((places >= 4) & (places < lengths)).long()


def test_fine_tuning(trl: Any, folder: Path, answers: list[Answer], tmp_path: Path) -> None:
    model = ours(folder, "policy")
    batch: Batch = answer_batch(answers, ROW_TOKENS, pad_id=0)
    loss_sum, _ = NextToken(few_labels=True).loss_sum(model, batch)
    loss = loss_sum / NextToken().count(batch)
    rows = [{"prompt": "the cat", "completion": " sat on"}] * 4
    trainer = their_trainer(trl.SFTTrainer, trl.SFTConfig, folder, rows, tmp_path)
    input_ids, is_answer = padded(answers, 0)
    lengths = torch.tensor([len(answer) for answer in answers])[:, None]
    inputs = {
        "input_ids": input_ids,
        "attention_mask": (torch.arange(ROW_TOKENS) < lengths).long(),
        "labels": input_ids.masked_fill(is_answer == 0, -100),
    }
    check(model, loss, trainer.model, trainer.compute_loss(trainer.model, inputs))


@pytest.mark.parametrize(("loss_type", "normalised"), [("sigmoid", False), ("sigmoid_norm", True)])
def test_preference(
    trl: Any, folder: Path, answers: list[Answer], tmp_path: Path, loss_type: str, normalised: bool
) -> None:
    model, reference = ours(folder, "policy"), ours(folder, "reference")
    tensors = answer_tensors(answers, ROW_TOKENS, pad_id=0)
    with torch.no_grad():
        log_probabilities = token_log_probabilities(reference, Batch(**tensors))
    batch = PairBatch(**tensors, reference_log_probabilities=log_probabilities)
    objective = DirectPreference(0.3, length_normalised=normalised)
    loss = objective.loss_sum(model, batch)[0] / objective.count(batch)

    rows = [{"prompt": "the cat", "chosen": " sat on", "rejected": " hat"}] * 4
    options = {"loss_type": [loss_type], "beta": 0.3, "disable_dropout": True}
    trainer = their_trainer(
        trl.DPOTrainer, trl.DPOConfig, folder, rows, tmp_path, ref_model=theirs(folder, "reference"), options=options
    )
    in_their_order = [*answers[0::2], *answers[1::2]]  # the chosen ones first
    input_ids, is_answer = padded(in_their_order, 0)
    lengths = torch.tensor([len(answer) for answer in in_their_order])[:, None]
    attention_mask = (torch.arange(ROW_TOKENS) < lengths).long()
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "completion_mask": is_answer}
    check(model, loss, trainer.model, trainer._compute_loss(trainer.model, inputs, return_outputs=False))


@pytest.mark.parametrize(("loss_type", "average"), [("grpo", "answers"), ("bnpo", "tokens")])
def test_reinforcement(
    trl: Any, folder: Path, answers: list[Answer], tmp_path: Path, loss_type: str, average: str
) -> None:
    model, reference = ours(folder, "policy"), ours(folder, "reference")
    tensors = answer_tensors(answers, ROW_TOKENS, pad_id=0)
    with torch.no_grad():
        reference_BT = token_log_probabilities(reference, Batch(**tensors))
        # As if the model had moved since it drew the answers: some ratios leave their range.
        drawn = torch.randn(reference_BT.shape, generator=torch.Generator().manual_seed(5)) * 0.3
        old_BT = token_log_probabilities(model, Batch(**tensors)) + drawn * (tensors["labels"] != -100)
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    batch = RolloutBatch(
        **tensors,
        weights=token_weights(tensors["labels"], average),
        advantages=group_advantages(rewards, 4),
        rewards=rewards,
        group_passed=torch.ones(8),
        is_empty=torch.zeros(8),
        is_endless=torch.zeros(8),
        reference_log_probabilities=reference_BT,
        old_log_probabilities=old_BT,
    )
    objective = GroupRelativePolicy(clip_range=0.2, kl_beta=0.1)
    loss = objective.loss_sum(model, batch)[0] / objective.count(batch)

    options = {
        "loss_type": loss_type,
        "beta": 0.1,
        "epsilon": 0.2,
        "use_bias_correction_kl": False,
        "num_generations": 4,
        "per_device_train_batch_size": 8,
    }
    rows = [{"prompt": "the cat"}] * 8
    trainer = their_trainer(
        trl.GRPOTrainer,
        trl.GRPOConfig,
        folder,
        rows,
        tmp_path,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        options=options,
    )
    trainer.current_gradient_accumulation_steps = 1
    input_ids, is_answer = padded(answers, 0)
    inputs = {
        "prompt_ids": input_ids[:, :4],
        "prompt_mask": torch.ones(8, 4, dtype=torch.long),
        "completion_ids": input_ids[:, 4:],
        "completion_mask": is_answer[:, 4:],
        "advantages": group_advantages(rewards, 4),
        "old_per_token_logps": old_BT[:, 3:-1],
        "ref_per_token_logps": reference_BT[:, 3:-1],
        "num_items_in_batch": is_answer.sum(),
    }
    check(model, loss, trainer.model, trainer._compute_loss(trainer.model, inputs))
