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
    """A CPU session on a file's path or a serialised model.

    threads: intra-op threads; with 1 the calling thread does all the work.
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
