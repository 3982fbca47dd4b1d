"""Answers and their figures, with scripted scores and with a real model."""

import json
from collections.abc import Callable, Sequence

import pytest
import torch

from hornbook.errors import UserError
from hornbook.evaluation.evaluate import answer_questions, suite_scores
from hornbook.evaluation.tasks import as_chat, as_text
from hornbook.inference.engine import Engine
from hornbook.model.transformer import Transformer
from hornbook.storyworld.questions import Question
from hornbook.tokenizer.tokenizer import Tokenizer

KITE = Question(
    "comprehension", "Mira had it.", "Who had the kite?", "Mira.", ("Ann.", "Mira.", "Tom.", "Maximilian."), 1
)


def test_the_likeliest_choice_is_the_answer(scripted_engine: Callable) -> None:
    engine = scripted_engine([-2.0, -1.0, -3.0, -4.0, -1.0, -2.0, -3.0, -4.0], ["Mira.", "Tom."])
    first, second = answer_questions(engine, [KITE, KITE], as_chat)

    assert (first.chose_right, second.chose_right) == (True, False)
    assert (first.is_right, second.is_right) == (True, False)
    assert second.answer == "Tom."


def test_a_tie_is_never_right(scripted_engine: Callable) -> None:
    (answered,) = answer_questions(scripted_engine([-5.0, -1.0, -1.0, -2.0], [""]), [KITE], as_chat)

    assert not answered.chose_right


def test_a_score_that_is_no_number_is_never_right(scripted_engine: Callable) -> None:
    (answered,) = answer_questions(scripted_engine([float("nan")] * 4, [""]), [KITE], as_chat)

    assert not answered.chose_right
    assert not answered.chose_right_normalised


def test_per_byte_a_long_choice_is_no_handicap(scripted_engine: Callable) -> None:
    long_is_right = Question("facts", "", "Who?", "Maximilian.", KITE.choices, 3)
    engine = scripted_engine([-4.0, -4.0, -4.0, -6.0], ["Maximilian."])
    (answered,) = answer_questions(engine, [long_is_right], as_chat)

    assert not answered.chose_right
    assert answered.chose_right_normalised


def test_the_figures_are_shares_with_their_standard_error(scripted_engine: Callable) -> None:
    right, wrong = [-2.0, -1.0, -3.0, -40.0], [-1.0, -2.0, -3.0, -40.0]
    engine = scripted_engine([*right, *right, *right, *wrong], ["Mira.", "", "", ""])
    scores = suite_scores(answer_questions(engine, [KITE] * 4, as_chat))

    assert scores["choice"] == 0.75
    assert scores["choice_stderr"] == pytest.approx((0.75 * 0.25 / 3) ** 0.5)
    assert scores["free"] == 0.25
    assert (scores["chance"], scores["n"], scores["n_cut"]) == (0.25, 4, 0)


def test_a_prompt_too_long_loses_its_beginning_and_is_counted(scripted_engine: Callable, tokenizer: Tokenizer) -> None:
    long = Question("comprehension", "It was a day. " * 60, KITE.question, KITE.answer, KITE.choices, 1)
    engine = scripted_engine([-2.0, -1.0, -3.0, -4.0] * 2, ["Mira.", "Mira."], context_tokens=100)
    answered = answer_questions(engine, [long, KITE], as_chat)

    assert [one.is_cut for one in answered] == [True, False]
    assert suite_scores(answered)["n_cut"] == 1
    assert tokenizer.decode(engine.prompts[0]).endswith(KITE.question)
    assert len(engine.prompts[0]) < 100


def test_no_questions_are_the_users_error(scripted_engine: Callable) -> None:
    with pytest.raises(UserError, match="no questions"):
        answer_questions(scripted_engine([], []), [], as_text)


def test_a_transcript_says_what_was_asked_expected_and_written(scripted_engine: Callable) -> None:
    (answered,) = answer_questions(scripted_engine([-2.0, -1.0, -3.0, -4.0], ["Tom."]), [KITE], as_text)
    transcript = json.loads(json.dumps(answered.transcript()))

    assert transcript["prompt_end"].endswith("Who had the kite?")
    assert (transcript["expected"], transcript["answer"], transcript["right"]) == ("Mira.", "Tom.", False)
    assert transcript["choices"]["Mira."] == -1.0


@pytest.mark.parametrize("ask_as", [as_text, as_chat])
def test_a_choices_score_is_its_probability_by_a_plain_forward_pass(
    ask_as: Callable,
    make_model: Callable[..., Transformer],
    tokenizer: Tokenizer,
    questions: Sequence[Question],
) -> None:
    model = make_model(max_seq_len=512)
    answered = answer_questions(Engine(model, tokenizer), questions, ask_as)

    for question, one in zip(questions, answered, strict=True):
        task = ask_as(question, tokenizer)
        prompt, ids = task.prompt, task.choices[question.gold]
        with torch.no_grad():
            log_probabilities = model.logits(model(torch.tensor([[*prompt, *ids]])))[0].log_softmax(-1)
        places = torch.arange(len(ids)) + len(prompt) - 1
        expected = log_probabilities[places, torch.tensor(ids)].sum().item()
        assert one.choice_nats[question.gold] == pytest.approx(expected, rel=1e-4)


def test_a_model_to_which_everything_is_as_likely_scores_nothing(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    alike = Question("reasoning", "", "How many?", "2.", ("1.", "2.", "3.", "4."), 1)
    scores = suite_scores(answer_questions(Engine(make_model(std=0.0), tokenizer), [alike] * 3, as_text))

    assert (scores["choice"], scores["choice_normalised"], scores["free"]) == (0.0, 0.0, 0.0)


def test_a_model_that_learned_the_answer_gives_it(make_model: Callable[..., Transformer], tokenizer: Tokenizer) -> None:
    model = make_model(std=0.1)
    task = as_chat(KITE, tokenizer)
    ids = torch.tensor([[*task.prompt, *task.choices[KITE.gold]]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        logits = model.logits(model(ids))
        torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()

    scores = suite_scores(answer_questions(Engine(model, tokenizer), [KITE], as_chat))

    assert (scores["choice"], scores["choice_normalised"], scores["free"]) == (1.0, 1.0, 1.0)
