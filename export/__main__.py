"""Command line: python -m export MODEL_DIR_OR_HUB_ID [--out DIR] ...

Reads a checkpoint, writes and verifies one artifact, and says what it did in English and Chinese.
"""

import argparse
import sys
from pathlib import Path

from export.errors import ExportError
from export.verify import Thresholds


def main() -> int:
    arguments = _parser().parse_args()
    # Imported late so that --help answers at once.
    from export.pipeline import Settings, export

    settings = Settings(
        source=arguments.model,
        out=arguments.out,
        precision=arguments.precision,
        weight_bits=arguments.weight_bits,
        calibration=arguments.calibration,
        verify_texts=arguments.verify_texts,
        thresholds=arguments.min_agreement,
        model_id=arguments.model_id,
        revision=arguments.revision,
        query_instruction=arguments.query_instruction,
        document_instruction=arguments.document_instruction,
        matryoshka=tuple(arguments.matryoshka),
        via=arguments.via,
        allow_pickle=arguments.allow_pickle,
        force=arguments.force,
    )
    try:
        export(settings)
    except ExportError as error:
        sys.stderr.write(f"error: {error.english}\n错误：{error.chinese}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped, nothing was written\n已停止，没有写入任何文件\n")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Turn a checkpoint into one verified ONNX artifact. 把模型检查点导出为一个经过验证的 ONNX 文件。",
    )
    add = parser.add_argument
    add(
        "model",
        help="checkpoint folder, or a hub id such as BAAI/bge-small-zh-v1.5 / 模型文件夹或 hub 名称",
    )
    add("--out", type=Path, help="artifact folder (default: MODEL/onnx-PRECISION) / 输出文件夹")
    add("--precision", choices=("int8", "fp32"), default="int8", help="default: int8 / 精度")
    add(
        "--weight-bits",
        type=int,
        choices=(7, 8),
        default=8,
        help="8 is closest to float32; 7 gives the same vectors on every x86 CPU with AVX2, whether"
        " it has VNNI or not / 8 位最接近 float32；7 位在所有支持 AVX2 的 x86 CPU 上向量相同",
    )
    add(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="texts like yours, one a line or .jsonl / 校准文本",
    )
    add("--verify-texts", type=Path, metavar="FILE", help="texts to verify on / 验证文本")
    add(
        "--min-agreement",
        type=_thresholds,
        default=Thresholds(),
        metavar="MEAN,MIN",
        help="least mean and single cosine to float32 (default: 0.997,0.98) / 与 float32 的最低余弦",
    )
    add("--model-id", help="name that clients see (default: the folder's name) / 模型名称")
    add("--revision", default="main", help="hub revision (default: main) / hub 版本")
    add("--query-instruction", metavar="TEXT", help="put before queries / 查询前缀")
    add("--document-instruction", metavar="TEXT", help="put before documents / 文档前缀")
    add(
        "--matryoshka",
        type=_sizes,
        default=(),
        metavar="N,N",
        help="sizes that the model was trained to be cut to / 可截断的维度",
    )
    add(
        "--via",
        choices=("graph", "optimum"),
        default="graph",
        help="optimum: other architectures / 其他架构",
    )
    add(
        "--allow-pickle",
        action="store_true",
        help="read pytorch_model.bin, weights only / 允许读取 .bin",
    )
    add("--force", action="store_true", help="export again even if nothing changed / 强制重新导出")
    return parser


def _thresholds(text: str) -> Thresholds:
    try:
        mean, minimum = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not MEAN,MIN such as 0.997,0.98") from None
    if not (-1 <= minimum <= mean <= 1):
        raise argparse.ArgumentTypeError(f"{text!r}: needs -1 <= MIN <= MEAN <= 1")
    return Thresholds(mean, minimum)


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 256,512") from None


if __name__ == "__main__":
    sys.exit(main())
