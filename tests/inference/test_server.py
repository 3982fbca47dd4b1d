"""The server over real connections: OpenAI's interface, its limits, and clients that leave or send rubbish."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.inference.engine import Engine
from hornbook.inference.load import EngineOptions, load_engine
from hornbook.tokenizer.chat import render

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")
serve_module = pytest.importorskip("hornbook.inference.serve")
server_module = pytest.importorskip("hornbook.inference.server")

Limits = pytest.importorskip("hornbook.inference.serving").Limits
ASK = [{"role": "user", "content": "Once upon a time"}]
Serve = Callable[..., AbstractContextManager["httpx.Client"]]


@pytest.fixture
def engine(run: Path) -> Engine:
    return load_engine(run / "finetune" / "final", EngineOptions("float32"))


@pytest.fixture
def serve(engine: Engine) -> Serve:
    """Starts a server on a free port; gives a client of it."""

    @contextmanager
    def start(**options: Any) -> Iterator["httpx.Client"]:
        config = uvicorn.Config(server_module.make_app(engine, "tiny", **options), port=0, log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()

    return start


def gauge(client: "httpx.Client", name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"hornbook_{name} ")))


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_chat_answer_is_what_the_engine_writes_streamed_or_not(serve: Serve, engine: Engine):
    prompt, _ = render(ASK, engine.tokenizer, add_generation_prompt=True)
    stop = engine.tokenizer.special_id("<|end|>")
    expected = engine.tokenizer.decode(engine.generate([prompt], 12, stop_ids={stop})[0])
    body = {"messages": ASK, "max_tokens": 12, "temperature": 0}
    with serve() as client:
        whole = client.post("/v1/chat/completions", json=body).json()
        streamed = events(
            client.post(
                "/v1/chat/completions", json=body | {"stream": True, "stream_options": {"include_usage": True}}
            ).text
        )
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": expected}
    assert whole["usage"]["prompt_tokens"] == len(prompt)
    pieces = [one["choices"][0]["delta"]["content"] for one in streamed if one["choices"]]
    assert "".join(pieces) == expected
    assert streamed[-1]["usage"] == whole["usage"]
    assert streamed[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_a_conversation_that_no_longer_fits_loses_its_oldest_turns_where_that_is_asked_for(
    serve: Serve, engine: Engine
):
    context = engine.model.config.max_seq_len
    long = [*[*ASK, {"role": "assistant", "content": "there was"}] * context, *ASK]
    with serve() as client:
        refused = client.post("/v1/chat/completions", json={"messages": long, "max_tokens": 5})
        body = {"messages": long, "max_tokens": 5, "temperature": 0, "truncation": "auto"}
        answered = client.post("/v1/chat/completions", json=body)
        short = client.post("/v1/chat/completions", json=body | {"messages": ASK})
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert answered.status_code == 200
    n_left_out = int(answered.headers["X-Messages-Left-Out"])
    prompt, _ = render(long[n_left_out:], engine.tokenizer, add_generation_prompt=True)
    more, _ = render(long[n_left_out - 2 :], engine.tokenizer, add_generation_prompt=True)
    assert len(prompt) <= context - 5 < len(more)
    assert answered.json()["usage"]["prompt_tokens"] == len(prompt)
    assert short.headers["X-Messages-Left-Out"] == "0"


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_text_is_encoded_beside_the_loop_that_serves_other_clients(
    serve: Serve, engine: Engine, path: str, monkeypatch: pytest.MonkeyPatch
):
    encode, threads = engine.tokenizer.encode, []

    def noted(text: str) -> list[int]:
        threads.append(threading.current_thread().name)
        return encode(text)

    monkeypatch.setattr(engine.tokenizer, "encode", noted)
    body = {"messages": ASK, "truncation": "auto"} if path.startswith("chat") else {"prompt": "Once upon"}
    with serve() as client:
        assert client.post(f"/v1/{path}", json=body | {"max_tokens": 2}).status_code == 200
    assert threads
    assert all(name.startswith("asyncio_") for name in threads)


def test_the_openai_client_works_unchanged(serve: Serve, engine: Engine):
    openai = pytest.importorskip("openai")
    with serve(api_key="sesame") as client:
        ours = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="sesame", max_retries=0)
        assert [model.id for model in ours.models.list()] == ["tiny"]
        options = {"model": "tiny", "temperature": 0, "max_tokens": 8}
        whole = ours.chat.completions.create(messages=ASK, logprobs=True, top_logprobs=3, **options)
        stream = ours.chat.completions.create(messages=ASK, stream=True, **options)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == whole.choices[0].message.content
        entries = whole.choices[0].logprobs.content
        assert len(entries) == whole.usage.completion_tokens
        assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in entries)
        many = ours.completions.create(prompt=["Once upon", [1, 2, 3]], n=2, logprobs=2, seed=3, **options)
        assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
        assert len(many.choices[0].logprobs.tokens) == len(many.choices[0].logprobs.token_logprobs) <= 8
        expected = engine.tokenizer.decode(engine.generate([engine.tokenizer.encode("Once upon")], 8)[0])
        assert many.choices[0].text == many.choices[1].text == expected
        streamed = ours.completions.create(prompt="Once upon", stream=True, **options)
        assert "".join(chunk.choices[0].text for chunk in streamed) == expected
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="wrong", max_retries=0).models.list()
        with pytest.raises(openai.NotFoundError):
            ours.chat.completions.create(model="other", messages=ASK)


def test_the_same_seed_draws_the_same_and_a_stop_string_ends_the_text(serve: Serve):
    body = {"prompt": "Once upon", "max_tokens": 30, "temperature": 1, "seed": 7}
    with serve() as client:
        first, again = (client.post("/v1/completions", json=body).json()["choices"][0] for _ in range(2))
        stop = first["text"][5:8]
        cut = client.post("/v1/completions", json=body | {"stop": stop}).json()["choices"][0]
    assert first["text"] == again["text"]
    assert cut["text"] == first["text"][: first["text"].index(stop)]
    assert cut["finish_reason"] == "stop"


RUBBISH = [
    b"",
    b"{",
    b"null",
    b"[" * 5000,
    b'{"messages": []}',
    b'{"messages": [{"role": "user"}]}',
    b'{"messages": [{"role": "assistant", "content": "x"}]}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": [{"role": "user", "content": "x"}], "\\ud800": 1}',
    b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 999999999999999999999}',
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}',
    b'{"messages": [{"role": "user", "content": "x"}], "seed": 1e400}',
    b'{"messages": [{"role": "user", "content": "x"}], "wrong": 1}',
    b'{"messages": [{"role": "user", "content": "' + b"long " * 200 + b'"}]}',
    b'{"prompt": []}',
    b'{"prompt": ""}',
    b'{"prompt": [999999]}',
    b'{"prompt": [[1], []]}',
    b'{"prompt": "x", "n": 99}',
    b'{"prompt": "x", "stop": [""]}',
    b"\xff\xfe\x00",
]


def test_rubbish_is_refused_with_a_reason_and_the_server_goes_on(serve: Serve):
    with serve() as client:
        for path in ("/v1/chat/completions", "/v1/completions"):
            for body in RUBBISH:
                answer = client.post(path, content=body, headers={"content-type": "application/json"})
                assert answer.status_code == 400, (body[:80], answer.text)
                assert answer.json()["error"]["message"]
        assert client.post("/v1/completions", content=b"x", headers={"content-type": "text/plain"}).status_code == 400
        assert client.get("/v1/nothing").status_code == 404
        assert client.post("/v1/completions", json={"prompt": [[False]]}).status_code == 400
        wrong_method = client.get("/v1/completions")
        assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")
        described = client.get("/openapi.json").json()["paths"]["/v1/completions"]["post"]["responses"]
        assert set(described) == {"200", "4XX", "5XX"}
        assert set(described["200"]["content"]) == {"application/json", "text/event-stream"}
        assert client.post("/v1/completions", json={"prompt": "x", "max_tokens": 2}).status_code == 200
        assert gauge(client, "requests_active") == gauge(client, "requests_waiting") == 0


@pytest.mark.parametrize(
    ("path", "fields", "reason"),
    [
        ("completions", {"stream_options": {"include_usage": True}}, "stream_options has no effect without stream"),
        ("chat/completions", {"stream_options": {}}, "stream_options has no effect without stream"),
        ("chat/completions", {"top_logprobs": 3}, "top_logprobs has no effect without logprobs"),
        ("chat/completions", {"top_logprobs": 3, "logprobs": False}, "top_logprobs has no effect without logprobs"),
        ("chat/completions", {"max_tokens": 2, "max_completion_tokens": 2}, "two names of one limit"),
        ("completions", {"repetition_penalty": 1e-9}, "repetition_penalty: Input should be greater than or equal to 0"),
        ("completions", {"prompt": ""}, "prompt: String should have at least 1 character"),
        ("completions", {"prompt": ["a", []]}, "prompt.1: List should have at least 1 item"),
        ("completions", {"prompt": None}, "prompt: Input should be a valid string or a valid list"),
        ("completions", {"stop": 3, "n": 0}, "stop: Input should be a valid string or a valid list; n: "),
        (
            "chat/completions",
            {"messages": [*ASK, {"role": "assistant", "content": None}, *ASK]},
            "messages.1.content: Input should be a valid string or a valid list",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text: Field required",
        ),
        ("chat/completions", {"messages": [{"role": "user", "content": ""}]}, "Message 1, from user, has no text"),
    ],
)
def test_the_reason_of_a_refusal_is_a_sentence_about_the_field(
    serve: Serve, path: str, fields: dict[str, Any], reason: str
):
    needed = {"messages": ASK} if path.startswith("chat") else {"prompt": "Once"}
    with serve() as client:
        refused = client.post(f"/v1/{path}", json=needed | fields)
    assert refused.status_code == 400
    assert reason in refused.json()["error"]["message"]
    assert "[" not in refused.json()["error"]["message"]


def test_the_description_says_what_must_not_be_empty(serve: Serve):
    with serve() as client:
        described = client.get("/openapi.json").json()["components"]["schemas"]
        answered = [*ASK, {"role": "assistant", "content": ""}, *ASK]
        assert client.post("/v1/chat/completions", json={"messages": answered, "max_tokens": 2}).status_code == 200
    text, _, several = described["CompletionRequest"]["properties"]["prompt"]["anyOf"]
    assert text["minLength"] == several["items"]["anyOf"][0]["minLength"] == 1
    message = described["ChatMessage"]
    assert message["if"]["properties"]["role"] == {"const": "assistant"}
    assert message["else"]["properties"]["content"] == {"minLength": 1, "minItems": 1}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("Bearer sésame".encode(), 200),
        ("Bearer sésame".encode("latin-1"), 200),
        ("bearer   sésame".encode(), 200),
        ("BEARER sésame".encode(), 200),
        (b"Bearer s?same", 401),
        (b"Bearer sesame", 401),
        (b"Bearer", 401),
        (b"", 401),
    ],
)
def test_a_key_is_known_however_its_characters_are_sent(serve: Serve, sent: bytes, status: int):
    with serve(api_key="sésame") as client:
        assert client.get("/v1/models", headers=[(b"authorization", sent)]).status_code == status


def test_each_limit_has_its_status(serve: Serve):
    with serve(limits=Limits(body_bytes=500, new_tokens=20, rows=1, waiting=0)) as client:
        assert client.post("/v1/completions", json={"prompt": "x" * 600}).status_code == 413
        chunks = (b"x" * 100 for _ in range(9))
        assert client.post("/v1/completions", content=chunks).status_code == 413
        assert client.post("/v1/completions", json={"prompt": "x", "max_tokens": 21}).status_code == 400
        never = client.post("/v1/completions", json={"prompt": "x", "n": 2, "max_tokens": 2})
        assert (never.status_code, "at most 1" in never.text) == (400, True)
    with serve(limits=Limits(seconds=0.001)) as client:
        assert client.post("/v1/completions", json={"prompt": "x", "max_tokens": 60}).status_code == 504


def test_who_finds_the_queue_full_is_told_to_come_again(serve: Serve, slow_steps: None):
    body = {"prompt": "Once upon", "max_tokens": 60}
    with (
        serve(limits=Limits(rows=1, waiting=0)) as client,
        client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer,
    ):
        next(answer.iter_lines())
        full = client.post("/v1/completions", json=body)
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")


def test_only_tokens_up_to_the_stop_string_are_counted(serve: Serve):
    body = {"prompt": "Once upon", "max_tokens": 40, "temperature": 1, "seed": 7, "logprobs": 1}
    with serve() as client:
        whole = client.post("/v1/completions", json=body).json()["choices"][0]
        cut = client.post("/v1/completions", json=body | {"stop": whole["text"][3:6]}).json()
        assert cut["usage"]["completion_tokens"] == len(cut["choices"][0]["logprobs"]["tokens"]) < 40
        assert gauge(client, "new_tokens_total") == 40 + cut["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rows", 0),
        ("new_tokens", 0),
        ("body_bytes", 0),
        ("waiting", -1),
        ("seconds", 0.0),
        ("seconds", float("inf")),
        ("context_tokens", 1),
    ],
)
def test_limits_that_nothing_could_be_served_with_are_refused(option: str, value: float):
    with pytest.raises(UserError, match=r"^--\w+: must be"):
        Limits(**{option: value})


def test_rows_that_the_memory_cannot_hold_are_refused_before_they_are_allocated(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(UserError, match=r"^--rows 100000000: so many answers of 96 tokens.* 4,966\.4 GB .* are free"):
        server_module.make_app(engine, "tiny", Limits(rows=10**8))
    monkeypatch.setattr("hornbook.inference.cache.free_memory_bytes", lambda _: 600_000)
    with pytest.raises(UserError, match=r"^--rows 16: .* smaller --context"):
        server_module.make_app(engine, "tiny", Limits())
    server_module.make_app(engine, "tiny", Limits(rows=10))
    server_module.make_app(engine, "tiny", Limits(context_tokens=50))


def test_the_context_that_is_served_is_the_one_that_was_named(serve: Serve):
    with serve(limits=Limits(context_tokens=20)) as client:
        assert client.get("/v1/models").json()["data"][0]["context_tokens"] == 20
        long = client.post("/v1/completions", json={"prompt": [1] * 20})
        full = client.post("/v1/completions", json={"prompt": [1] * 15, "max_tokens": 30})
    assert "has 20 tokens, but the context holds 20 in all" in long.json()["error"]["message"]
    assert full.json()["usage"]["completion_tokens"] == 5


def test_a_context_beyond_the_models_is_refused(engine: Engine):
    with pytest.raises(UserError, match=r"--context: must be at most 96, .* but is 97"):
        server_module.make_app(engine, "tiny", Limits(context_tokens=97))


def test_nothing_is_computed_any_more_for_a_client_that_has_left(serve: Serve, engine: Engine, slow_steps: None):
    with serve() as client:
        body = {"prompt": "Once upon", "max_tokens": 60, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            next(answer.iter_lines())
            assert gauge(client, "requests_active") == 1
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json=body | {"stream": False}, timeout=0.3)
        deadline = time.monotonic() + 2
        while gauge(client, "requests_active") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert gauge(client, "requests_active") == 0


@pytest.fixture
def slow_steps(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes a while for each token, and does not end by itself, however its tokens are drawn."""
    logits = engine.model.logits

    def slowly(hidden: Any) -> Any:
        time.sleep(0.1)
        scores = logits(hidden)
        scores[..., engine.tokenizer.end_of_text_id] = float("-inf")
        return scores

    monkeypatch.setattr(engine.model, "logits", slowly)


@pytest.fixture
def fifth_step_fails(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, calls = engine.model.logits, []

    def sometimes(hidden: Any) -> Any:
        calls.append(hidden)
        if len(calls) == 5:
            raise RuntimeError("out of memory")
        return logits(hidden)

    monkeypatch.setattr(engine.model, "logits", sometimes)


BODY = {"prompt": "Once upon", "max_tokens": 30, "seed": 1}


def test_a_model_that_fails_is_status_500_and_the_server_goes_on(
    serve: Serve, fifth_step_fails: None, capfd: pytest.CaptureFixture[str]
):
    with serve() as client:
        failed = client.post("/v1/completions", json=BODY)
        assert client.post("/v1/completions", json=BODY).status_code == 200
        counted = client.get("/metrics").text
    assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
    assert "out of memory" not in failed.text
    assert 'requests_total{path="/v1/completions",status="500"} 1' in counted
    assert "RuntimeError: out of memory" in capfd.readouterr().err


def test_a_model_that_fails_in_the_middle_of_a_stream_ends_it_with_the_error(
    serve: Serve, fifth_step_fails: None, capfd: pytest.CaptureFixture[str]
):
    with serve() as client:
        *_, last = events(client.post("/v1/completions", json=BODY | {"stream": True}).text)
        assert client.post("/v1/completions", json=BODY).status_code == 200
    assert last["error"]["type"] == "server_error"
    assert "RuntimeError: out of memory" in capfd.readouterr().err


def test_many_clients_at_once_all_get_their_own_answer(serve: Serve, engine: Engine):
    prompts = [f"Once upon a time there was a cat {number}" for number in range(24)]
    expected = engine.generate([engine.tokenizer.encode(prompt) for prompt in prompts], 10)
    answers: dict[str, str] = {}
    with serve(limits=Limits(rows=5)) as client:

        def ask(prompt: str) -> None:
            body = {"prompt": prompt, "max_tokens": 10, "temperature": 0}
            answers[prompt] = client.post("/v1/completions", json=body).json()["choices"][0]["text"]

        threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gauge(client, "tokens_shared_total") > 0
    assert [answers[prompt] for prompt in prompts] == [engine.tokenizer.decode(tokens) for tokens in expected]


def test_what_is_running_ends_when_the_server_is_told_to_stop(engine: Engine, slow_steps: None):
    server = uvicorn.Server(uvicorn.Config(server_module.make_app(engine, "tiny"), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/completions"
    with httpx.stream(
        "POST", url, json={"prompt": "Once", "max_tokens": 8, "stream": True, "temperature": 0}
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.should_exit = True
        assert list(lines)[-2:-1] == ["data: [DONE]"]
    thread.join(10)
    assert not thread.is_alive()


def test_the_page_and_its_parts_come_from_the_server_alone(serve: Serve):
    with serve() as client:
        page = client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for part in ("style.css", "chat.js"):
            assert f"/page/{part}" in page.text
            found = client.get(f"/page/{part}")
            assert found.status_code == 200
            assert "http://" not in found.text.replace("http://www.w3.org", "")
            assert "https://" not in found.text
        assert client.get("/health").json() == {"status": "ok"}


def test_the_page_is_given_examples_of_what_can_be_asked(serve: Serve):
    with serve(examples=["What was Emil?"]) as client:
        assert client.get("/page/examples.json").json() == ["What was Emil?"]
    with serve() as client:
        assert client.get("/page/examples.json").json() == []
