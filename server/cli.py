"""Command line: serve, index and search; everything a person reads is Chinese and English."""

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from server import VERSION
from server.config import Config, add_flags, flags_given
from server.errors import ServerError, StartupError
from server.metrics import now

if TYPE_CHECKING:
    from server.engine import Embedded, Engine
    from server.store.collection import Collection
    from server.types import Vectors

    Run = Callable[[Coroutine[Any, Any, Embedded]], Embedded]


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        config = Config.load(os.environ, flags_given(arguments))
        logging.basicConfig(
            level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        # faiss tells how it tried each instruction set before the one it found.
        logging.getLogger("faiss").setLevel(logging.WARNING)
        command: Callable[[Config, argparse.Namespace], int] = arguments.command
        return command(config, arguments)
    except StartupError as error:
        sys.stderr.write(f"error: {error.english}\n错误：{error.chinese}\n")
    except ServerError as error:
        sys.stderr.write(f"error 错误: {error.message}\n")
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped 已停止\n")
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Inkwell 墨池: private embeddings and search on a CPU. 私有的向量与检索服务。",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="answer HTTP requests / 启动 HTTP 服务")
    add_flags(serve)
    serve.set_defaults(command=_serve)

    index = commands.add_parser("index", help="add the lines of a text file / 将文本文件逐行入库")
    index.add_argument("file", help='one document a line, "-" reads standard input / 每行一篇文档')
    index.add_argument(
        "--encoding", default="utf-8", help="of the file / 文件编码 (default: utf-8)"
    )
    _common(index, _index)

    search = commands.add_parser("search", help="ask the collection / 检索")
    search.add_argument("query", nargs="?", help="without it, a prompt opens / 省略则进入交互模式")
    search.add_argument(
        "--top-k", type=_positive, default=3, help="hits shown / 返回条数 (default: 3)"
    )
    search.add_argument("--json", action="store_true", help="print the hits as JSON / 输出 JSON")
    _common(search, _search)
    return parser


def _common(
    parser: argparse.ArgumentParser, command: Callable[[Config, argparse.Namespace], int]
) -> None:
    parser.add_argument(
        "--collection", default="default", help="name / 集合名称 (default: default)"
    )
    add_flags(parser, "model", "data", "lanes", "log_level")
    parser.set_defaults(command=command)


def _serve(config: Config, _: argparse.Namespace) -> int:
    from server.app import create_app
    from server.encoder import SAME_VECTORS, Model
    from server.engine import wide_threads
    from server.listener import listen

    model = Model(config.model, wide_threads(config))
    if model.self_test_cosine < SAME_VECTORS:
        logging.getLogger(__name__).warning(
            "this CPU computes other int8 vectors than the exporting one (cosine %.4f); export"
            " again with --weight-bits 7 for the same vectors on every CPU."
            " 本机 CPU 的 int8 结果与导出时不同；如需跨机一致，请用 --weight-bits 7 重新导出",
            model.self_test_cosine,
        )
    listen(create_app(model, config), config)
    return 0


def _index(config: Config, arguments: argparse.Namespace) -> int:
    from server.indexing import index_texts

    with _open(config, arguments.collection) as (collection, engine, run):
        done = index_texts(
            collection,
            lambda texts: run(engine.embed(texts)).vectors,
            arguments.file,
            clock=now,
            encoding=arguments.encoding,
            progress=sys.stderr,
        )
        sys.stdout.write(
            f"已入库 {done.added:,} 条，未变 {done.unchanged:,} 条，用时 {done.seconds:.1f} 秒\n"
            f"added {done.added:,}, unchanged {done.unchanged:,}, {done.seconds:.1f} s\n"
        )
    return 0


def _search(config: Config, arguments: argparse.Namespace) -> int:
    from server.prompt import one_shot, run_prompt

    with _open(config, arguments.collection) as (collection, engine, run):

        def embed_query(text: str) -> "Vectors":
            vector: Vectors = run(engine.embed([text], "query")).vectors[0]
            return vector

        if arguments.query is None:
            run_prompt(collection, embed_query, arguments.top_k)
        else:
            one_shot(
                collection, embed_query, arguments.query, arguments.top_k, as_json=arguments.json
            )
    return 0


@contextlib.contextmanager
def _open(config: Config, name: str) -> Iterator[tuple["Collection", "Engine", "Run"]]:
    """A collection and an engine for a command that runs alone, and what waits for the engine."""
    from server.encoder import Model
    from server.engine import Engine, wide_threads
    from server.metrics import Metrics
    from server.store.collection import Collection

    model = Model(config.model, wide_threads(config))
    collection = Collection.open(config.data, name, model.manifest)
    with asyncio.Runner() as runner:
        engine = Engine(model, config, Metrics(), runner.get_loop())
        try:
            yield collection, engine, runner.run
        finally:
            engine.close()
            collection.close()


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0 / 需要正整数")
    return int(text)


def run() -> None:
    """Entry point of the installed command."""
    sys.exit(main(sys.argv[1:]))
