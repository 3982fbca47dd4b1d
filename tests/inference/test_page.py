"""The chat page in a browser. The server's answers are made up here, so that they break off where a test wants it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hornbook.inference

playwright = pytest.importorskip("playwright.sync_api")

PAGE = Path(hornbook.inference.__file__).parent / "page"
URL = "http://localhost/"
STORAGE_CHARACTERS = 5 * 2**20
"""Which Chromium gives to an address."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


class Tabs:
    """Tabs of one browser. `stream` is what comes of a question; where `waits` is set, not before `answer_all`."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._asked: list[Any] = []
        self.stream = [event("fine", [entry("fine")]), event("", [], "stop"), "[DONE]"]
        self.waits = False
        context.route("**/*", self._serve)

    def open(self) -> Any:
        tab = self._context.new_page()
        tab.set_default_timeout(10_000)
        tab.goto(URL)
        return tab

    def answer_all(self) -> None:
        lines = [one if isinstance(one, str) else json.dumps(one) for one in self.stream]
        while self._asked:
            body = "".join(f"data: {line}\n\n" for line in lines)
            self._asked.pop().fulfill(content_type="text/event-stream", body=body)

    def _serve(self, route: Any) -> None:
        path = route.request.url.removeprefix(URL)
        if path == "v1/chat/completions":
            self._asked.append(route)
            if not self.waits:
                self.answer_all()
        elif path == "v1/models":
            route.fulfill(json={"data": [{"id": "tiny"}]})
        elif path == "page/examples.json":
            route.fulfill(json=[])
        else:
            route.fulfill(path=PAGE / (path.removeprefix("page/") or "index.html"))


@pytest.fixture
def tabs(browser: Any) -> Iterator[Tabs]:
    context = browser.new_context()
    yield Tabs(context)
    context.close()


def entry(name: str, content: bytes | None = None) -> dict[str, Any]:
    """A token as chat completions tell it, with another that could have come."""
    told = {"token": name, "bytes": list(name.encode() if content is None else content), "logprob": -0.1}
    other = {"token": r"bytes:\xff", "bytes": [0xFF], "logprob": -3.0}
    return told | {"top_logprobs": [told, other]}


def event(text: str, tokens: list[Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": tokens}, "finish_reason": finish}
    return {"choices": [choice]}


def begin(tab: Any, question: str) -> None:
    tab.fill("#question", question)
    tab.press("#question", "Enter")


def end(tab: Any) -> str:
    """What the page says when the answer has ended."""
    tab.wait_for_selector("#stop", state="hidden")
    return tab.inner_text("#status")


def ask(tab: Any, question: str) -> str:
    begin(tab, question)
    return end(tab)


def wait_for_list(tab: Any, titles: list[str]) -> None:
    playwright.expect(tab.locator("#list li button:first-child")).to_have_text(titles)


def delete(tab: Any, title: str) -> None:
    tab.get_by_label(f"Delete “{title}”").click()


def texts(tab: Any) -> list[str]:
    return tab.locator("#messages .text").all_inner_texts()


def kept(tab: Any) -> list[list[dict[str, Any]]]:
    """The messages of all conversations in the browser's storage."""
    values = tab.evaluate("Object.keys(localStorage).filter((k) => k.includes('conv')).map((k) => localStorage[k])")
    return [json.loads(value)["messages"] for value in values]


def test_two_tabs_keep_each_other_s_conversations_and_deletions(tabs: Tabs):
    first, second = tabs.open(), tabs.open()
    ask(first, "one")
    ask(second, "two")
    for tab in (first, second, tabs.open()):
        wait_for_list(tab, ["two", "one"])
    delete(first, "two")
    wait_for_list(second, ["one"])
    ask(second, "three")
    second.reload()
    wait_for_list(second, ["one"])
    assert texts(second) == ["one", "fine", "three", "fine"]
    playwright.expect(first.locator("#messages .text")).to_have_text(texts(second))


def test_a_conversation_that_is_deleted_while_its_answer_comes_stays_deleted(tabs: Tabs):
    first, second = tabs.open(), tabs.open()
    tabs.waits = True
    begin(first, "one")
    wait_for_list(second, ["Empty conversation", "one"])
    delete(second, "one")
    assert end(first) == "Stopped."
    tabs.answer_all()
    wait_for_list(first, ["Empty conversation"])
    assert kept(first) == []


def test_a_conversation_in_which_two_tabs_talk_at_once_becomes_two(tabs: Tabs):
    first = tabs.open()
    ask(first, "one")
    second = tabs.open()
    tabs.waits = True
    begin(first, "two")
    playwright.expect(second.locator("#messages .text")).to_have_text(["one", "fine", "two"])
    begin(second, "three")
    wait_for_list(first, ["one", "one"])
    tabs.answer_all()
    assert end(first) == end(second) == "The answer is complete."
    told = [[message["content"] for message in messages] for messages in kept(first)]
    assert sorted(told) == [["one", "fine", "three", "fine"], ["one", "fine", "two", "fine"]]


def test_conversations_that_were_kept_under_one_key_are_taken_over(tabs: Tabs):
    tab = tabs.open()
    old = [
        {"id": title, "messages": [{"role": "user", "content": title}, {"role": "assistant", "content": "a"}]}
        for title in ("new", "old")
    ]
    tab.evaluate("(old) => localStorage.setItem('hornbook.conversations', JSON.stringify(old))", old)
    for _ in range(2):
        tab.reload()
        wait_for_list(tab, ["Empty conversation", "new", "old"])
    assert len(kept(tab)) == 2
    assert tab.evaluate("localStorage.getItem('hornbook.conversations')") is None


def test_texts_are_kept_without_their_probabilities(tabs: Tabs):
    tab = tabs.open()
    ask(tab, "one")
    assert kept(tab) == [[{"role": "user", "content": "one"}, {"role": "assistant", "content": "fine"}]]


def test_everything_but_keeping_works_where_the_storage_is_full(tabs: Tabs):
    tab = tabs.open()
    tab.evaluate(f"localStorage.setItem('x', 'x'.repeat({STORAGE_CHARACTERS - 1}))")
    assert "storage is full" in ask(tab, "one")
    assert texts(tab) == ["one", "fine"]
    tab.click("#show-settings")
    tab.check("[name=probabilities]")
    assert tab.locator("#messages .text button").all_inner_texts() == ["fine"]
    assert "storage is full" in tab.inner_text("#status")
    tab.evaluate("localStorage.removeItem('x')")
    assert ask(tab, "two") == "The answer is complete."
    assert len(kept(tab)[0]) == 4


CAME = event("fine", [entry("fine")])
FAILED = {"error": {"message": "The server failed."}}


@pytest.mark.parametrize(
    ("stream", "said", "answers"),
    [
        ([CAME, event("", [], "stop"), "[DONE]"], "The answer is complete.", ["fine"]),
        ([CAME, event("", [], "length"), "[DONE]"], "The answer was cut off: there was no room for more.", ["fine"]),
        ([CAME, FAILED, "[DONE]"], "The answer broke off: The server failed.", ["fine"]),
        ([CAME, "[DONE]"], "The answer broke off: the server ended the connection.", ["fine"]),
        ([CAME], "The answer broke off: the server ended the connection.", ["fine"]),
        ([FAILED, "[DONE]"], "That did not work: The server failed.", []),
        ([], "That did not work: the server ended the connection.", []),
    ],
)
def test_an_answer_that_breaks_off_is_not_taken_for_a_complete_one(
    stream: list[Any], said: str, answers: list[str], tabs: Tabs
):
    tabs.stream = stream
    tab = tabs.open()
    assert ask(tab, "one") == said
    assert texts(tab) == ["one", *answers]
    assert len(kept(tab)[0]) == 1 + len(answers)


def test_a_character_that_is_spread_over_tokens_is_shown_whole_and_explained_token_by_token(tabs: Tabs):
    spread = [entry(f"bytes:\\x{byte:02x}", bytes([byte])) for byte in "東".encode()]
    tabs.stream = [event(" a", [entry(" a")]), event("東", spread), event("\ufffd", []), event("", [], "length")]
    tab = tabs.open()
    ask(tab, "one")
    tab.click("#show-settings")
    tab.check("[name=probabilities]")
    assert tab.locator("#messages .text button").all_text_contents() == [" a", "東\ufffd"]
    tab.click("#messages .text button >> nth=1")
    assert tab.inner_text("#token-title") == 'In place of "東\ufffd", made of 3 tokens'
    assert tab.locator("tr.chosen td:first-child").all_inner_texts() == [r"bytes:\xe6", r"bytes:\x9d", r"bytes:\xb1"]
    assert tab.locator("#alternatives tbody tr").count() == 6
    tab.click("text=Close")
    tab.click("#messages .text button >> nth=0")
    assert tab.locator("#alternatives td:first-child").all_inner_texts() == ['" a"', r"bytes:\xff"]
