"""A library as a function from pairs of texts to scores, asked line by line without HTTP.

    PYTHON benchmarks/comparison/contenders/reranking.py LIBRARY FOLDER THREADS

LIBRARY, with FOLDER:

    inkwell         this project's tokenizer, queue and lanes, one for each thread; an artifact
    torch           CrossEncoder of sentence-transformers in float32; the checkpoint
    torch-bfloat16  the same in bfloat16
    onnx            its ONNX backend in float32, optimised at level O3; the checkpoint
    onnx-int8       its ONNX backend in dynamic int8 for AVX512-VNNI; the checkpoint

Each line of the standard input is a JSON list of pairs, or empty to end. The answer is a JSON object on a line: the
seconds from pairs to scores, the CPU seconds of all cores, and the scores before activation. The ONNX files
are written into the checkpoint's folder once. `--versions` prints the packages instead.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import offline  # noqa: F401  # isort: skip

Score = Callable[[list[list[str]]], list[float]]
PACKAGES = ("torch", "transformers", "sentence-transformers", "optimum-onnx", "onnxruntime")
INT8_FILE, O3_FILE = "onnx/model_qint8_avx512_vnni.onnx", "onnx/model_O3.onnx"


def inkwell(folder: str, threads: int) -> Score:
    import asyncio

    from server.config import Config
    from server.inference.engine import Engine, lanes_for
    from server.inference.model import Model
    from server.telemetry.metrics import Metrics

    config = Config(lanes=threads)
    model = Model(Path(folder), threads)
    loop = asyncio.new_event_loop()
    engine = Engine(model, config, Metrics(), loop, lanes_for(config, Metrics(), loop))

    def score(pairs: list[list[str]]) -> list[float]:
        asked = engine.score([(first, second) for first, second in pairs])
        return loop.run_until_complete(asked).logits.tolist()

    return score


def torch(folder: str, threads: int, dtype: str = "float32") -> Score:
    import torch

    torch.set_num_threads(threads)
    return _cross_encoder(folder, model_kwargs={"torch_dtype": getattr(torch, dtype)})


def onnx(folder: str, threads: int, *, int8: bool = False) -> Score:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    wanted = INT8_FILE if int8 else O3_FILE
    if not (Path(folder) / wanted).exists():
        _write_onnx(folder, int8=int8)
    settings = {"file_name": wanted, "provider": "CPUExecutionProvider", "session_options": options}
    return _cross_encoder(folder, backend="onnx", model_kwargs=settings)


def _write_onnx(folder: str, *, int8: bool) -> None:
    import sentence_transformers as library

    plain = library.CrossEncoder(
        folder, backend="onnx", model_kwargs={"provider": "CPUExecutionProvider"}
    )
    if not (Path(folder) / "onnx" / "model.onnx").exists():
        plain.save_pretrained(folder)
    if int8:
        library.export_dynamic_quantized_onnx_model(plain, "avx512_vnni", folder)
    else:
        library.export_optimized_onnx_model(plain, "O3", folder)


def _cross_encoder(folder: str, **options: object) -> Score:
    import numpy as np
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(folder, device="cpu", local_files_only=True, **options)

    def score(pairs: list[list[str]]) -> list[float]:
        given = [tuple(pair) for pair in pairs]
        found = model.predict(given, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return np.asarray(found, np.float32).reshape(-1).tolist()

    return score


LIBRARIES: dict[str, Callable[[str, int], Score]] = {
    "inkwell": inkwell,
    "torch": torch,
    "torch-bfloat16": lambda folder, threads: torch(folder, threads, "bfloat16"),
    "onnx": onnx,
    "onnx-int8": lambda folder, threads: onnx(folder, threads, int8=True),
}


def versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    if sys.argv[1] == "--versions":
        print(versions())
        return
    name, folder, threads = sys.argv[1:]
    # Libraries print; the answers must stand alone.
    answers, sys.stdout = sys.stdout, sys.stderr
    score = LIBRARIES[name](folder, int(threads))
    while line := sys.stdin.readline().strip():
        pairs = json.loads(line)
        started, busy = time.perf_counter(), time.process_time()
        scores = score(pairs)
        took = time.perf_counter() - started
        answer = {"seconds": took, "cpu_s": time.process_time() - busy, "scores": scores}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
