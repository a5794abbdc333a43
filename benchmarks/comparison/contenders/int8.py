"""Write the int8 models of the contenders, with the tools of their libraries.

    VENV/bin/python benchmarks/comparison/contenders/int8.py onnx MODEL_DIR FOLDER
    VENV/bin/python benchmarks/comparison/contenders/int8.py openvino MODEL_DIR FOLDER --texts TEXTS.jsonl

onnx: optimised (O2), then dynamic quantisation with 8-bit weights per channel, or 7-bit ones on a CPU
without VNNI. openvino: static quantisation with NNCF, calibrated with 300 of the given texts. Tokenizer
and configuration are saved beside the model, so that other libraries can load the folder too.
"""

import argparse
import shutil
from pathlib import Path

import offline  # noqa: F401  # isort: skip

from sentence_transformers import SentenceTransformer

SAMPLES = 300


def onnx(model_dir: str, folder: str) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from sentence_transformers import export_optimized_onnx_model

    chosen = {"provider": "CPUExecutionProvider", "export": True}
    model = SentenceTransformer(model_dir, device="cpu", backend="onnx", model_kwargs=chosen)
    model.save_pretrained(folder)
    export_optimized_onnx_model(model, "O2", folder, file_suffix="O2")
    written = Path(folder) / "onnx"
    # The choices of sentence-transformers' own presets. Those raise for an optimised graph, because
    # the type of the outputs of its fused operators must be stated.
    quantize_dynamic(
        written / "model_O2.onnx",
        written / "model_quantized.onnx",
        per_channel=True,
        reduce_range="vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    # infinity with optimum-onnx loads no file from a subfolder of the model's.
    flat = Path(folder) / "flat"
    flat.mkdir(exist_ok=True)
    for file in (*Path(folder).glob("*.json"), written / "model_quantized.onnx"):
        shutil.copyfile(file, flat / file.name)


def openvino(model_dir: str, folder: str, texts: Path) -> None:
    from optimum.intel import OVQuantizationConfig
    from sentence_transformers import export_static_quantized_openvino_model

    model = SentenceTransformer(
        model_dir, device="cpu", backend="openvino", model_kwargs={"export": True}
    )
    model.save_pretrained(folder)
    # The data set is a folder, and every file in it belongs to it.
    samples = Path(folder) / "samples"
    samples.mkdir(exist_ok=True)
    shutil.copyfile(texts, samples / "train.jsonl")
    export_static_quantized_openvino_model(
        model,
        OVQuantizationConfig(num_samples=SAMPLES),
        folder,
        dataset_name=str(samples),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
        file_suffix="quantized",
    )


def main() -> None:
    """Export, quantise and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=("onnx", "openvino"))
    parser.add_argument("model_dir")
    parser.add_argument("folder")
    parser.add_argument("--texts", type=Path, help="a JSON object with a text on every line")
    args = parser.parse_args()
    if args.library == "onnx":
        onnx(args.model_dir, args.folder)
    else:
        openvino(args.model_dir, args.folder, args.texts)


if __name__ == "__main__":
    main()
