"""infinity's own server and its own batching, with a process for every core.

    VENV/bin/python benchmarks/comparison/contenders/infinity.py ENGINE --port 8091

Run it in the model's folder: optimum-onnx refuses the path that infinity makes of any other. ENGINE is
optimum, with the file that int8.py wrote, or torch in bfloat16. infinity's own command starts one
process; here the first process deals connections to one per core, each with one thread.
It answers POST /v1/embeddings on the loopback only.
"""

import argparse
import os
import sys

import offline  # noqa: F401  # isort: skip

# PyTorch reads it when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"

from dealer import deal, serve

# infinity pads a batch to its longest text: batches to 32, its default, starve mixed lengths.
BATCH = 4
ENGINES = {
    # The file is optimised already, and processes would optimise it again to one and the same place.
    "optimum": {"onnx_disable_optimize": True},
    "torch": {"dtype": "bfloat16", "compile": False, "bettertransformer": False},
}


def create_app(engine: str) -> object:
    """Return infinity's application for the model in the current folder."""
    from infinity_emb.args import EngineArgs
    from infinity_emb.infinity_server import create_server

    if engine == "optimum":
        _one_thread_a_session()
    model = EngineArgs(
        model_name_or_path=".",
        served_model_name="model",
        engine=engine,
        device="cpu",
        pooling_method="cls",
        batch_size=BATCH,
        model_warmup=True,
        **ENGINES[engine],
    )
    return create_server(engine_args_list=[model], url_prefix="/v1")


def _one_thread_a_session() -> None:
    """Give each session of ONNX Runtime one thread; infinity has no setting for it."""
    import onnxruntime

    session = onnxruntime.InferenceSession
    original = session.__init__

    def with_one_thread(self, path_or_bytes, sess_options=None, *rest, **named) -> None:
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        original(self, path_or_bytes, options, *rest, **named)

    session.__init__ = with_one_thread


def main() -> None:
    """Serve with a process for every core until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--port", type=int, default=8091)
    parser.add_argument("--dealer", type=int, help="used by the server itself")
    args = parser.parse_args()
    if args.dealer is None:
        deal([sys.executable, __file__, args.engine], args.port)
    else:
        serve(create_app(args.engine), args.dealer)


if __name__ == "__main__":
    main()
