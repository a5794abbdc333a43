"""The one place that imports onnxruntime, with its telemetry off before the import."""

import os
from typing import Any

# onnxruntime's Linux wheel writes a device id and an event database under the user's cache folder
# at import and knows an upload address; this variable stops both, and only before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

# onnxruntime has no type stubs.
Session = Any
VERSION: str = onnxruntime.__version__


def open_session(model: str | bytes, threads: int) -> Session:
    """Return a CPU session for a model, given as a file's path or as bytes.

    threads: intra-op threads; with 1 the calling thread does all the work.

    The other options keep their defaults. Speeds with each, as a part of that without (2026-11-25, AVX512-VNNI,
    bge-small-zh-v1.5, at 1x18, 16x16, 1x128 and 1x512; the same option twice differed by up to 0.02):
    one thread without arena 0.96, 0.99, 0.98, 0.94; without memory patterns 0.99, 0.98, 1.01, 1.01; without
    prepacking 0.36, 0.84, 0.77, 0.90; denormals as zero 0.96, 1.01, 1.03, 1.03; graph optimisation off
    1.02, 1.03, 1.03, 1.03. Two threads without spinning 0.73, 0.92, 0.83, 0.90; blocks of 4 0.83, 0.92, 0.70,
    0.71; of 16 1.00, 0.94, 1.01, 0.98.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads > 1:
        # Threads wait for each other actively during a run, which is 1.3 times as fast as sleeping,
        # and stop with it: left to themselves they would burn a core for 20 ms after each.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
