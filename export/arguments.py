"""Arguments that several commands of the exporter take."""

import argparse
from collections.abc import Callable
from pathlib import Path

from export.known.pair_prompts import NO_PROMPT, PAIR_PROMPTS
from server.messages.terminal import Terminal


def add_model(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    said = terminal.words(
        "checkpoint folder, .tar or .gguf file, a hub id such as BAAI/bge-small-zh-v1.5 or "
        "modelscope:BAAI/bge-small-zh-v1.5, or the address of a model's page"
    )
    parser.add_argument("model", help=said)


def add_revision(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    said = terminal.words("hub revision (default: main, on ModelScope master)")
    parser.add_argument("--revision", type=text_of(terminal), help=said)


def add_task(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    said = terminal.words(
        "what the artifact gives: sparse weights, or a vector for each token (default: what the model was "
        "made for)"
    )
    parser.add_argument(
        "--task", choices=("dense", "sparse", "token_vectors", "score"), default=None, help=said
    )


def add_tokenizer(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    said = terminal.words(
        "the original tokenizer.json of a .gguf file, or the folder that it is in"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="PATH", help=said)


def add_via(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    said = terminal.words("optimum exports other architectures (default: graph)")
    parser.add_argument("--via", choices=("graph", "optimum"), default="graph", help=said)


def add_pair_prompt(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    said = terminal.words(
        "prompt in which a language model reads pairs of texts: that of Qwen3-Reranker, or none (default: what "
        "its files show)"
    )
    names = (*PAIR_PROMPTS, NO_PROMPT)
    parser.add_argument("--pair-prompt", choices=names, help=said)


def text_of(terminal: Terminal) -> Callable[[str], str]:
    """Return what refuses an argument with bytes that are not UTF-8."""

    def parse(text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            said = terminal.words("{text!r} holds bytes that are not UTF-8", text=text)
            raise argparse.ArgumentTypeError(said) from None
        return text

    return parse
