"""The engine is quiet, goes on after a kill, and gives the same bytes on one machine and on a Ray cluster."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from hornbook.corpus import engine
from hornbook.corpus.engine import use_engine
from hornbook.corpus.staging import Staging
from hornbook.errors import UserError

PROGRAM = """
import json, os, socket, sys
calls = []
real_connect = socket.socket.connect
socket.socket.connect = lambda self, address: (calls.append(str(address)), real_connect(self, address))[1]
import hornbook.corpus.curate, hornbook.stages.corpus
before = "daft" in sys.modules
from hornbook.corpus.engine import load_daft
daft = load_daft()
from daft.scarf_telemetry import opted_out
daft.from_pydict({"x": [1]}).collect()
facts = {"before": before, "opted_out": opted_out(), "calls": calls, "torch": "torch" in sys.modules}
print(json.dumps(facts))
"""


def test_daft_is_loaded_only_when_needed_and_reports_nothing():
    quiet = ("DO_NOT_TRACK", "DAFT_ANALYTICS_ENABLED", "DAFT_PROGRESS_BAR")
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, env=environment)
    assert json.loads(done.stdout) == {"before": False, "opted_out": True, "calls": [], "torch": False}
    assert done.stderr == ""


# Sent to the child as text, so that it is killed like any run of a user.
CURATE = """
import sys
from pathlib import Path
from hornbook.corpus import curate as module, sources, staging
from hornbook.corpus.benchmarks import Benchmark, Item
from hornbook.corpus.curate import curate
from hornbook.recipe_data import CorpusSection, StoryworldSection

engine, folder, texts, wait = sys.argv[1:]
staging.STAGED_BYTES = sources.BYTES_IN_TURN = 200_000
few = dict.fromkeys(("echoes", "inventories", "still_lives", "puzzles", "sums", "encyclopedia_passages"), 20)
world = StoryworldSection(stories=1500, web_pages=300, **few)

def progress(documents, n_bytes):
    print(documents, flush=True)
    if wait == "wait" and documents > 900:
        sys.stdin.read()

if __name__ == "__main__":
    module.DOCUMENTS_PER_SHARD = 700
    question = "How did the lame miller of that village carry nine sacks over the frozen river"
    benchmark = Benchmark("quiz", [Item("1", (question,))])
    section = CorpusSection(source=["storyworld", f"files:{texts}/*"], weights=[1, 1.5], engine=engine)
    curate(section, world, Path(folder), [benchmark], progress)
"""


def command(engine: str, folder: Path, texts: Path, wait: str = "go") -> list[str]:
    return [sys.executable, "-c", CURATE, engine, str(folder), str(texts), wait]


def shards(folder: Path) -> dict[str, bytes]:
    """The shards, and the receipt of what they may not give away."""
    return {path.name: path.read_bytes() for path in [*folder.glob("*.parquet"), *folder.glob("decontamination.json")]}


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """A folder with files of several kinds, something broken in one of them, and a benchmark's question in another."""
    folder = tmp_path_factory.mktemp("texts")
    tale = "In the year {} the miller of that village had {} sacks of flour, and the river was frozen.\n"
    lines = [json.dumps({"text": tale.format(year, year % 17) * 3}) for year in range(1600, 1900)]
    lines[7] = "no json"
    with gzip.open(folder / "tales.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    asked = "How did the lame miller of that village carry ten sacks over the frozen river? Nobody can say it now."
    (folder / "asked.txt").write_text(asked, encoding="utf-8")
    (folder / "page.html").write_text(f"<html><body><p>{tale.format(1500, 3) * 9}</p></body></html>", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, texts) -> tuple[dict[str, bytes], int]:
    """The shards of a run that nobody disturbs, and how many documents it judged."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = subprocess.run(command("local", folder, texts), check=True, capture_output=True, text=True)
    return shards(folder), int(done.stdout.splitlines()[-1])


def test_after_kill_9_the_same_bytes_come_out_and_what_was_staged_is_not_judged_again(tmp_path, texts, uninterrupted):
    child = subprocess.Popen(
        command("local", tmp_path, texts, "wait"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while int(child.stdout.readline()) <= 900:
        pass
    child.kill()
    assert child.wait() == -signal.SIGKILL
    staged = list((tmp_path / ".staging").glob("staged-*.parquet"))
    n_staged = sum(pyarrow.parquet.read_metadata(path).num_rows for path in staged)
    assert n_staged > 0
    assert not shards(tmp_path)
    (tmp_path / ".staging" / ".staged-00099.parquet.tmp-1").write_bytes(b"half of a file")
    done = subprocess.run(command("local", tmp_path, texts), check=True, capture_output=True, text=True)
    expected, n_documents = uninterrupted
    assert json.loads(expected["decontamination.json"])["documents_removed"] == 1
    assert int(done.stdout.splitlines()[-1]) == n_documents - n_staged
    assert shards(tmp_path) == expected
    assert not (tmp_path / ".staging").exists()


def test_what_was_staged_for_another_recipe_is_not_used(tmp_path):
    first = Staging(tmp_path / "staging", "one")
    batch = pyarrow.record_batch({"index": [1, 2], "n_raw_bytes": [5, 5]})
    assert list(first.write([batch], None)) == [(2, 10)]
    assert len(Staging(tmp_path / "staging", "one").files) == 1
    assert len(Staging(tmp_path / "staging", "two").files) == 0


def test_without_ray_its_engine_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'corpus.engine: "ray" .*hornbook\[cluster\]'):
        use_engine("ray")


@pytest.mark.cluster
def test_a_ray_cluster_gives_the_same_bytes_as_one_machine(tmp_path, texts, uninterrupted):
    pytest.importorskip("ray")
    subprocess.run(command("ray", tmp_path, texts), check=True, capture_output=True, text=True)
    assert shards(tmp_path) == uninterrupted[0]


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes what Linux says of control groups, and gives the processors of a process bound to eight."""
    monkeypatch.setattr(engine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(own, contents):
        (tmp_path / "own").write_text(own)
        for name, text in contents.items():
            (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / name).write_text(text)
        return engine.processors(tmp_path / "own", tmp_path / "groups")

    return write


@pytest.mark.parametrize(
    ("quota", "n"),
    [("max 100000\n", 8), ("150000 100000", 1), ("50000 100000", 1), ("300000 100000", 3), ("nonsense", 8), ("", 8)],
)
def test_a_container_may_have_less_than_the_processors_it_sees(groups, quota, n):
    assert groups("0::/\n", {"cpu.max": quota}) == n


def test_the_least_quota_of_a_group_and_those_above_it_counts(groups):
    own = "0::/user.slice/job\n"
    assert groups(own, {"user.slice/job/cpu.max": "max 100000", "user.slice/cpu.max": "200000 100000"}) == 2
    assert groups(own, {"user.slice/job/cpu.max": "100000 100000"}) == 1
    assert groups("0::/another\n", {}) == 8


def test_quotas_of_the_first_version_of_control_groups_count(groups):
    own = "12:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/\n0::/\n"
    no_quota = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert groups(own, no_quota) == 8
    assert groups(own, {"cpu/job/cpu.cfs_quota_us": "100000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}) == 1


def test_without_control_groups_those_count_that_the_process_is_bound_to(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert engine.processors(tmp_path / "missing") == 2
