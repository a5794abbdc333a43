"""What does each family of models cost, and how near is it to the library that it comes from?

    python -m benchmarks.families SCRATCH [--only NAME ...] [--results FILE.jsonl] [--torch PYTHON]
        [--models FOLDER] [--quick] [--keep] [--speed-again]

One row a published shape: parity with sentence-transformers, agreement of int8 with float32, what a batch
changes, tokens a second, size of the file, and memory and seconds of the export. Weights are random, so
agreement says how int8 does on noise. A folder FOLDER/NAME with the real weights is used instead where
there is one.

Parity is of the same widths with two layers in float32, and needs a Python with sentence-transformers
(--torch). Without it, and for models that transformers does not know, tests compare with references in numpy.

Each step is a process of its own with a time limit. A row becomes a JSON line; with --results it is also
appended to FILE, and rows that FILE has are not measured again. The table is printed at the end. --quick:
few calibration texts, and texts of up to 128 tokens. --speed-again: for a run whose exports were made beside
other work.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.arguments import parser
from benchmarks.machine import Line
from benchmarks.models.checkpoint import write_checkpoint
from benchmarks.models.published import BY_NAME, SCORE, Published
from benchmarks.steps import run_module
from export.checkpoint import read_checkpoint
from export.onnx_file import serialize
from export.texts.files import MULTILINGUAL, read_texts
from export.texts.pairs import query_of
from server.inference.comparison import row_cosines
from server.inference.encoder import SessionEncoder
from server.inference.manifest import TextRules, read_manifest
from server.inference.tokenizer import Tokenizer
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves

CASE = "families"
QUICK_TEXTS, QUICK_TOKENS = 20, 128
PARITY_TEXTS, PARITY_LIMIT = 24, 600.0
COLUMNS = {
    "model": "model",
    "weights": "weights",
    "parity": "parity",
    "agreement": "int8 agreement",
    "batch_difference": "batch",
    "tokens_s_1x128": "tokens/s, 1x128",
    "tokens_s_16x16": "tokens/s, 16x16",
    "file_mb": "file, MB",
    "export_peak_mb": "export peak, MB",
    "export_s": "export, s",
}


def main() -> None:
    arguments = _arguments()
    done = {} if arguments.results is None else stored(arguments.results)
    rows: list[Line] = []
    for name in arguments.only or BY_NAME:
        row = done.get((name, arguments.quick))
        if row is None or arguments.speed_again:
            row = _row(BY_NAME[name], arguments) if row is None else row | _speed(name, arguments)
            machine.show(row, arguments)
            if arguments.results is not None:
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(machine.written(row, arguments) + "\n")
        rows.append(row)
    print(table(rows))


def stored(path: Path) -> dict[tuple[str, bool], Line]:
    """Return the rows of a file by model and by whether they are quick; the last of each counts."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    mine = [line for line in lines if line.get("case") == CASE and "failed" not in line]
    return {(line["model"], line["quick"]): line for line in mine}


def table(rows: Sequence[Line]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    lines += [[_cell(row, key) for key in COLUMNS] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(row: Line, key: str) -> str:
    value = row.get(key)
    if value is None:
        return str(row.get("failed", "")) if key == "agreement" else ""
    if key == "parity":
        return f"{value['measure']} {value['value']:.7g}" if "value" in value else "numpy"
    if key == "agreement":
        return f"{value['mean']:.4f} / {value['minimum']:.4f}"
    if isinstance(value, float):
        return f"{value:.1e}" if key == "batch_difference" else f"{value:,.0f}"
    return str(value)


# --- one row --------------------------------------------------------------------------------------


def _row(model: Published, arguments: argparse.Namespace) -> Line:
    """Return everything that is measured of one model; a step that fails ends the row."""
    folder = arguments.scratch / model.name
    row: Line = {"case": CASE, "model": model.name, "quick": arguments.quick}
    try:
        row |= {"parity": parity(model, folder, arguments.torch)}
        row |= _exported(model, folder, arguments)
        row |= _speed(model.name, arguments)
    except subprocess.SubprocessError as error:
        row["failed"] = str(error).splitlines()[-1][:200]
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return row


def _exported(model: Published, folder: Path, arguments: argparse.Namespace) -> Line:
    """Export a model; returns its agreement, and what the export took."""
    checkpoint, weights = folder / "checkpoint", "random"
    if arguments.models is not None and (arguments.models / model.name).is_dir():
        checkpoint, weights = arguments.models / model.name, "real"
    elif not (checkpoint / "config.json").exists():
        write_checkpoint(checkpoint, model)
    accepted = "-1,-1,-1" if model.pooling == SCORE else "-1,-1"
    command = ["export", checkpoint, f"--out={folder / 'onnx'}", f"--min-agreement={accepted}"]
    if arguments.quick:
        command += [f"--max-tokens={min(QUICK_TOKENS, model.max_tokens)}"]
        for option, texts in (
            ("calibration", MULTILINGUAL.calibration),
            ("verify-texts", MULTILINGUAL.verification),
        ):
            command.append(f"--{option}={_few(folder / f'{option}.txt', texts)}")
    command.append("--force")
    _, took = run_module(command, stdout=subprocess.DEVNULL, limit_s=arguments.limit)
    agreement = read_manifest(folder / "onnx").agreement
    measured = {"mean": agreement.mean, "minimum": agreement.minimum} if agreement else None
    return {
        "weights": weights,
        "agreement": measured,
        "export_peak_mb": took.peak_mb,
        "export_s": took.seconds,
        "export_cpu_s": took.cpu_s,
    }


def _speed(name: str, arguments: argparse.Namespace) -> Line:
    """Measure an artifact that is in the scratch folder."""
    artifact = arguments.scratch / name / "onnx"
    command = ["benchmarks.models.measuring", artifact]
    printed, _ = run_module(command, stdout=subprocess.PIPE, limit_s=arguments.limit)
    measured: Line = json.loads(printed)
    return measured


def _few(path: Path, texts: Path) -> Path:
    lines = read_texts(texts, at_least=QUICK_TEXTS)[:QUICK_TEXTS]
    path.write_text("\n".join(" ".join(line.split()) for line in lines), encoding="utf-8")
    return path


# --- parity ---------------------------------------------------------------------------------------


def parity(model: Published, folder: Path, python: Path | None) -> Line:
    """Compare the same widths with two layers in float32 with sentence-transformers, which `python` has."""
    if python is None or not model.in_transformers:
        return {"by": "tests with a reference in numpy"}
    small = write_checkpoint(folder / "small", model.smaller())
    texts = read_texts(MULTILINGUAL.verification, at_least=PARITY_TEXTS)[:PARITY_TEXTS]
    pairs = [(query_of(text), text) for text in texts]
    of_pairs = model.pooling == SCORE
    script = Path(__file__).with_name("models") / "reference.py"
    command = [str(python), str(script), str(small)]
    given = json.dumps(pairs if of_pairs else texts)
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=True, timeout=PARITY_LIMIT
    )
    reference = json.loads(done.stdout)
    expected = np.array(reference["rows"], np.float32)
    checkpoint = read_checkpoint(small)
    network, settings = checkpoint.network(), checkpoint.settings
    floats = network.float_linears()
    graph = serialize(network.whole(floats, int8_embeddings=False))
    with graph.opened() as opened:
        encoder = SessionEncoder(opened, network.packing(floats), cpu_budget())
    rules = TextRules(lower_case=settings.lower_case, max_tokens=settings.max_tokens)
    tokenizer = Tokenizer(checkpoint.tokenizer_json, rules)
    ids = tokenizer.encode_pairs(pairs).ids if of_pairs else tokenizer.encode(texts).ids
    found = np.concatenate([encoder.encode([each]) for each in ids])
    if of_pairs:
        compared = {"measure": "difference", "value": float(np.abs(found - expected).max())}
    else:
        compared = {"measure": "cosine", "value": float(row_cosines(found, expected).min())}
    return {"by": reference["by"], **compared}


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, model=False)
    options.add_argument("scratch", type=Path, help="for checkpoints and artifacts: up to 6 GB")
    options.add_argument("--only", nargs="+", choices=[*BY_NAME], metavar="NAME")
    options.add_argument("--results", type=Path, help="lines are appended; rows it has are skipped")
    options.add_argument("--torch", type=Path, help="a Python that has sentence-transformers")
    options.add_argument("--models", type=Path, help="folder with real weights")
    options.add_argument("--quick", action="store_true", help="few texts, of up to 128 tokens")
    options.add_argument("--keep", action="store_true", help="leave checkpoints and artifacts")
    options.add_argument(
        "--speed-again",
        action="store_true",
        help="measure speed again of the artifacts that --keep left, for rows that --results has",
    )
    options.add_argument("--limit", type=float, default=3600.0, help="seconds of each step")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
