"""What the server has done so far, in the text format that Prometheus reads (exposition format 0.0.4)."""

from collections import Counter

_BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """How many of some durations were at most so long."""

    def __init__(self) -> None:
        self._counts = [0] * len(_BUCKETS_SECONDS)
        self._count, self._sum_seconds = 0, 0.0

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self._count += 1
        self._sum_seconds += seconds
        for place, limit in enumerate(_BUCKETS_SECONDS):
            self._counts[place] += seconds <= limit

    def lines(self, name: str) -> list[str]:
        """Its samples."""
        buckets = [
            f'{name}_bucket{{le="{limit}"}} {count}'
            for limit, count in zip(_BUCKETS_SECONDS, self._counts, strict=True)
        ]
        return [*buckets, f'{name}_bucket{{le="+Inf"}} {self._count}', f"{name}_sum {self._sum_seconds:.6f}",
                f"{name}_count {self._count}"]  # fmt: skip


class Counters:
    """Requests by endpoint and status, tokens, and how long clients waited."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.prompt_tokens, self.new_tokens = 0, 0
        self.first_token, self.whole_answer = Histogram(), Histogram()

    def render(self, *, n_active: int, n_waiting: int, tokens_read: int, tokens_shared: int) -> str:
        """The page that /metrics gives."""
        requests = [
            f'hornbook_requests_total{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self.requests.items())
        ]
        tables = [
            ("requests_total", "counter", "Answers by path and status.", requests),
            ("prompt_tokens_total", "counter", "Tokens of prompts.", self.prompt_tokens),
            ("new_tokens_total", "counter", "Tokens written.", self.new_tokens),
            ("tokens_read_total", "counter", "Tokens that went through the model.", tokens_read),
            ("tokens_shared_total", "counter", "Tokens of prompts taken over from other texts.", tokens_shared),
            ("requests_active", "gauge", "Requests that have a row.", n_active),
            ("requests_waiting", "gauge", "Requests that wait for a row.", n_waiting),
            ("first_token_seconds", "histogram", "Time to the first token.", self.first_token),
            ("answer_seconds", "histogram", "Time to the whole answer.", self.whole_answer),
        ]
        lines = []
        for name, kind, what, samples in tables:
            full = f"hornbook_{name}"
            lines += [f"# HELP {full} {what}", f"# TYPE {full} {kind}"]
            if isinstance(samples, Histogram):
                lines += samples.lines(full)
            else:
                lines += samples if isinstance(samples, list) else [f"{full} {samples}"]
        return "\n".join(lines) + "\n"
