"""What answers SIGTERM once Ray runs in a job."""

import signal
import subprocess
import sys

import pytest
from conftest import ROOT, environment

CODE = """
import os, signal, sys
from pathlib import Path
from instrunet.experiment import ClusterSpec
from pipelines import cli, cluster

def work():
    cluster.connect(ClusterSpec(), verbose=False)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

sys.exit(cli.run(work, False))
"""


@pytest.mark.ray
def test_sigterm_ends_a_job_with_143_and_a_word() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment() | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.splitlines()[-1].startswith("stopped; what was finished is kept")
