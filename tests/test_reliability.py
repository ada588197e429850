"""A few cases of the reliability scripts: killed trainings, killed writers, and several ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks" / "reliability"


def run(script, *arguments, folder):
    """The summary of a run, and its cases."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, SCRIPTS / script, *arguments, f"--out={folder / 'out.json'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((folder / "out.json").read_text())
    return result["summary"], result["cases"]


def test_a_killed_training_resumes_bit_for_bit(tmp_path):
    summary, cases = run("kill_training.py", "--kills=2", folder=tmp_path)
    assert summary["resumed_bit_for_bit"] == 2, cases


def test_a_killed_writer_leaves_no_half_of_a_file(tmp_path):
    summary, cases = run("kill_writing.py", "--kills=3", folder=tmp_path)
    assert summary["half_written"] == 0, cases
    assert {case["kind"] for case in cases} >= {
        "checkpoint",
        "mask cache",
        "feature store",
        "result",
        "list of episodes",
    }


def test_ranks_have_the_sums_and_steps_of_one(tmp_path):
    summary, cases = run("ranks.py", "--cases=2", folder=tmp_path)
    assert (summary["equal_sums"], summary["equal_steps"], summary["failed_or_hung"]) == (2, 2, 0), cases
