"""Many clients at once, some hanging up and some sending rubbish: is anything lost, and does memory come back?

    python benchmarks/serve_soak.py [--clients 64] [--seconds 60]

Serves a tiny model on this machine's loopback address and talks to it alone. Printed: answers by status, greedy answers
that were not what the engine writes alone, requests left over, and resident memory before and after.
"""

import argparse
import random
import resource
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import torch
import uvicorn

from hornbook.inference.engine import Engine
from hornbook.inference.server import make_app
from hornbook.inference.serving import Limits
from hornbook.model.config import config_from_recipe
from hornbook.model.transformer import Transformer
from hornbook.recipe_data import ModelSection
from hornbook.runtime import torch_generator
from hornbook.tokenizer.tokenizer import Tokenizer

PAGE_BYTES = resource.getpagesize()
RUBBISH: list[object] = [
    None,
    [],
    {},
    {"prompt": {}},
    {"prompt": "x", "temperature": "hot"},
    {"prompt": "x", "stop": 7},
    {"prompt": [[[1]]]},
    {"prompt": "x" * 9999},
    {"prompt": "x", "max_tokens": -1},
]


def tiny_engine() -> Engine:
    tokenizer = Tokenizer.train(["Once upon a time there was a cat. The cat sat on the mat. "] * 3, 290, "llama3")
    section = ModelSection(n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, max_seq_len=128)
    model = Transformer(config_from_recipe(section, tokenizer.vocab_size))
    generator = torch_generator("tiny model")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return Engine(model, tokenizer)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    engine = tiny_engine()
    prompts = [f"Once upon a time there was a cat {number}" for number in range(40)]
    alone = engine.generate([engine.tokenizer.encode(prompt) for prompt in prompts], 12)
    expected = {prompt: engine.tokenizer.decode(tokens) for prompt, tokens in zip(prompts, alone, strict=True)}
    server = uvicorn.Server(uvicorn.Config(make_app(engine, "tiny", Limits(waiting=24)), port=0, log_level="error"))
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    statuses: Counter[str] = Counter()

    def talk(number: int, ends_at: float) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=url, timeout=60) as client:
            while time.monotonic() < ends_at:
                prompt = chance.choice(prompts)
                body = {"prompt": prompt, "max_tokens": 12, "temperature": 0}
                kind = chance.choice(["whole", "whole", "hang up", "rubbish"])
                if kind == "rubbish":
                    answer = client.post(chance.choice(["/v1/completions", "/v1/chat/completions"]),
                                         json=chance.choice(RUBBISH))  # fmt: skip
                    statuses[f"rubbish {answer.status_code}"] += 1
                elif kind == "hang up":
                    with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
                        next(answer.iter_lines(), None)
                    statuses[f"hung up {answer.status_code}"] += 1
                else:
                    answer = client.post("/v1/completions", json=body)
                    statuses[f"whole {answer.status_code}"] += 1
                    if answer.status_code == 200 and answer.json()["choices"][0]["text"] != expected[prompt]:
                        statuses["whole, but another text"] += 1

    def all_talk(seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        clients = [threading.Thread(target=talk, args=(number, ends_at)) for number in range(options.clients)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    memory = []
    for _ in range(4):
        all_talk(options.seconds / 4)
        time.sleep(1)
        memory.append(f"{resident_bytes() / 2**20:.0f}")
    metrics = httpx.get(f"{url}/metrics").text
    for status, count in sorted(statuses.items()):
        print(f"{status:28}{count:>8,}")
    left = [
        line
        for line in metrics.splitlines()
        if line.startswith(("hornbook_requests_active ", "hornbook_requests_waiting "))
    ]
    print("left over:", ", ".join(left))
    print(
        "answers of 500 and above by the server's own count:", sum('status="5' in line for line in metrics.splitlines())
    )
    print(f"resident memory after each quarter of the time, MB: {', '.join(memory)}")
    server.should_exit = True
    serving.join()


if __name__ == "__main__":
    main()
