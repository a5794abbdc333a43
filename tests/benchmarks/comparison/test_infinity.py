"""Each session of ONNX Runtime that infinity opens has one thread."""

import subprocess
import sys
from pathlib import Path

from benchmarks.comparison.environments import CONTENDERS
from server.inference.manifest import MODEL_FILE

OPENED = """
import sys
sys.path.insert(0, sys.argv[1])
import infinity, onnxruntime
infinity._one_thread_a_session()
chosen = onnxruntime.SessionOptions()
chosen.intra_op_num_threads = 3
for options in ((), (chosen,)):
    session = onnxruntime.InferenceSession(sys.argv[2], *options)
    print(session.get_session_options().intra_op_num_threads)
"""


def test_a_session_has_one_thread_whatever_its_options_say(toy_artifact: Path) -> None:
    # In a process of its own, because it changes a class of onnxruntime.
    command = [sys.executable, "-c", OPENED, str(CONTENDERS), str(toy_artifact / MODEL_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "1"], done.stderr
