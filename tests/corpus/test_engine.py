"""Daft is quiet: it reports no usage and draws no progress bar of its own."""

import json
import os
import subprocess
import sys

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
