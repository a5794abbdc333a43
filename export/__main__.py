"""Command line: python -m export MODEL [--out DIR] ..., or list, or inspect MODEL.

Reads a checkpoint, verifies the artifact made of it, writes it, and reports the result. `list` and `inspect`
write nothing; a folder of such a name is given as ./list.
"""

import os
import sys

# As in `server/__main__.py`: no module in the working directory is imported in place of a real one.
if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

import argparse
from collections.abc import Callable
from pathlib import Path

from export.arguments import (
    add_model,
    add_pair_prompt,
    add_revision,
    add_task,
    add_tokenizer,
    add_via,
    text_of,
)
from export.errors import ExportError
from export.verification.verify import Thresholds
from server.messages.terminal import Terminal
from server.system.output import until_reader_leaves


def main() -> int:
    """Run the command and return the exit status."""
    terminal = Terminal.of(os.environ)
    return until_reader_leaves(lambda: _run(terminal))


def _run(terminal: Terminal) -> int:
    """Run the command that the arguments name and return the exit status."""
    if sys.argv[1:2] == ["list"]:
        from export import listing

        return listing.run(terminal, sys.argv[2:])
    if sys.argv[1:2] == ["inspect"]:
        from export import inspection

        return inspection.run(terminal, sys.argv[2:])
    return _export(terminal)


def _export(terminal: Terminal) -> int:
    """Export one model and return the exit status."""
    arguments = _parser(terminal).parse_args()
    # Imported late so that --help answers at once.
    from export.pipeline import export
    from export.settings import Settings

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
        matryoshka=arguments.matryoshka,
        max_tokens=arguments.max_tokens,
        task=arguments.task,
        pair_prompt=arguments.pair_prompt,
        via=arguments.via,
        allow_pickle=arguments.allow_pickle,
        force=arguments.force,
        tokenizer=arguments.tokenizer,
    )
    try:
        export(settings, terminal)
    except ExportError as error:
        terminal.inform("error: {error}", error=error)
        return 1
    except KeyboardInterrupt:
        terminal.err.write("\n")
        terminal.inform("stopped, nothing was written")
        return 130
    return 0


def _parser(terminal: Terminal) -> argparse.ArgumentParser:
    words = terminal.words
    parser = terminal.parser(
        "python -m export",
        words(
            "Export a checkpoint to one verified ONNX artifact. Other commands: list, the models that are "
            "known; inspect MODEL, what one is and what its export would do."
        ),
    )
    add, text = parser.add_argument, text_of(terminal)
    add_model(parser, terminal)
    add("--out", type=Path, help=words("artifact folder (default: MODEL/onnx-PRECISION)"))
    add(
        "--precision",
        choices=("auto", "int8", "int8-rows", "int4", "fp16", "fp32"),
        default="int8",
        help=words(
            "precision of the weights; auto tries int8, then int8-rows, which scales some activations "
            "token by token, then fp16, until one agrees with float32; int4, for decoders, is smaller, slower and "
            "less exact than int8, and needs --min-agreement (default: int8)"
        ),
    )
    add(
        "--weight-bits",
        type=int,
        choices=(7, 8),
        default=8,
        help=words(
            "8 is closest to float32; 7 gives the same vectors on every x86 CPU with AVX2, with or"
            " without VNNI (default: 8)"
        ),
    )
    add(
        "--calibration",
        type=Path,
        metavar="FILE",
        help=words("texts like yours to calibrate on, one a line or .jsonl"),
    )
    add(
        "--verify-texts",
        type=Path,
        metavar="FILE",
        help=words("texts to verify on, one a line or .jsonl"),
    )
    add(
        "--min-agreement",
        type=_thresholds(terminal),
        metavar="MEAN,MIN[,TAU]",
        help=words(
            "lowest mean and lowest single agreement with float32: of vectors the cosine (default: "
            "0.997,0.98; of sparse weights 0.99,0.9; of token vectors 0.995,0.95), of scores 1 minus the "
            "difference, and TAU of the order (default: 0.99,0.9,0.9)"
        ),
    )
    add(
        "--model-id",
        type=text,
        help=words("name that clients see (default: the name of the folder)"),
    )
    add_revision(parser, terminal)
    add("--query-instruction", type=text, metavar="TEXT", help=words("text to put before queries"))
    add(
        "--document-instruction",
        type=text,
        metavar="TEXT",
        help=words("text to put before documents"),
    )
    add(
        "--matryoshka",
        type=_sizes(terminal),
        metavar="N,N",
        help=words(
            "shorter vector sizes for which the model was trained, or none (default: those known of it)"
        ),
    )
    add(
        "--max-tokens",
        type=int,
        metavar="N",
        help=words("cut texts to N tokens (default: what the model reads)"),
    )
    add_task(parser, terminal)
    add_pair_prompt(parser, terminal)
    add_tokenizer(parser, terminal)
    add_via(parser, terminal)
    add(
        "--allow-pickle",
        action="store_true",
        help=words("read pytorch_model.bin, its weights only"),
    )
    add("--force", action="store_true", help=words("export again even if nothing has changed"))
    return parser


def _thresholds(terminal: Terminal) -> Callable[[str], Thresholds]:
    def parse(text: str) -> Thresholds:
        try:
            mean, minimum, *order = (float(part) for part in text.split(","))
            if len(order) > 1:
                raise ValueError(text)
        except ValueError:
            said = terminal.words(
                "{text!r} is neither MEAN,MIN such as 0.997,0.98 nor MEAN,MIN,TAU", text=text
            )
            raise argparse.ArgumentTypeError(said) from None
        if not (-1 <= minimum <= mean <= 1 and all(-1 <= tau <= 1 for tau in order)):
            said = terminal.words(
                "{text!r} does not fit -1 <= MIN <= MEAN <= 1 and -1 <= TAU <= 1", text=text
            )
            raise argparse.ArgumentTypeError(said)
        return Thresholds(mean, minimum, *order)

    return parse


def _sizes(terminal: Terminal) -> Callable[[str], tuple[int, ...]]:
    def parse(text: str) -> tuple[int, ...]:
        if text == "none":
            return ()
        try:
            return tuple(int(part) for part in text.split(","))
        except ValueError:
            said = terminal.words("{text!r} is not a list such as 256,512", text=text)
            raise argparse.ArgumentTypeError(said) from None

    return parse


if __name__ == "__main__":
    sys.exit(main())
