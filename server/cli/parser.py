"""What can be said on the command line; all that a person reads there is Chinese and English.

What a command does is in `commands`.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from server import VERSION
from server.cli import commands
from server.config import Config, add_flags, effective, flags_given
from server.config_sources import API_KEY
from server.errors import ServerError, StartupError
from server.telemetry import logs

KEYS = "make, list and remove the keys of clients / 管理客户端密钥"
Command = Callable[[Config, argparse.Namespace], int]


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        environ = os.environ
        config, arguments.origins = effective(environ, flags_given(arguments))
        arguments.variables = environ
        logs.start(config)
        command: Command = arguments.command
        return command(config, arguments)
    except StartupError as error:
        sys.stderr.write(f"error: {error.english}\n错误：{error.chinese}\n")
    except ServerError as error:
        sys.stderr.write(f"error 错误: {error.message}\n")
    except BrokenPipeError:
        # Whoever reads has had enough; what Python holds back for it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped 已停止\n")
        return 130
    return 1


def run() -> None:
    """Entry point of the installed command."""
    sys.exit(main(sys.argv[1:]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Inkwell 墨池: private embeddings and search on a CPU. 私有的向量与检索服务。",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = parsers.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    add_flags(add("serve", commands.serve, "answer HTTP requests / 启动 HTTP 服务"))
    _index_flags(add("index", commands.index, "add the documents of files / 将文件中的文档入库"))
    _search_flags(add("search", commands.search, "ask a collection / 检索"))
    _export_flags(add("export", commands.export, "write a collection to a file / 导出集合"))
    _import_flags(add("import", commands.import_, "read what export has written / 导入"))
    _backup_flags(
        add("backup", commands.backup, "copy a collection, also of a running server / 备份集合")
    )
    _restore_flags(add("restore", commands.restore, "make a collection of a backup / 从备份恢复"))
    _check_flags(
        add("check", commands.check, "examine collections, status 1 if anything is wrong / 检查")
    )
    _reindex_flags(add("reindex", commands.reindex, "embed a collection anew / 重新计算向量"))
    _key_flags(parsers.add_parser("key", help=KEYS, description=KEYS))
    _collections_flags(add("collections", commands.collections, "list collections / 列出集合"))
    _doctor_flags(
        add(
            "doctor", commands.doctor, "examine machine, models and settings / 检查机器、模型与设置"
        )
    )
    add_flags(
        add(
            "config", commands.show_config, "print the settings that hold, as TOML / 显示生效的设置"
        )
    )
    return parser


def _index_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help='file, folder or "-" for standard input / 文件、文件夹或 -'
    )
    parser.add_argument(
        "--format", help="instead of the one its name tells / 格式：txt, jsonl, csv, tsv, md"
    )
    _encoding_flag(parser)
    _chunk_flags(parser)
    _target_flags(parser)


def _search_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "query", nargs="?", metavar="QUERY", help="without it, a prompt opens / 省略则进入交互模式"
    )
    parser.add_argument(
        "--top-k", type=_positive, default=3, help="hits shown / 返回条数 (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print the hits as JSON / 输出 JSON")
    parser.add_argument(
        "--mode",
        choices=("dense", "lexical", "hybrid"),
        default="dense",
        help="by meaning, by words, by both / 按语义、按词、两者结合 (default: dense)",
    )
    parser.add_argument(
        "--filter", type=_json_object, help='on metadata, e.g. {"year": 2024} / 元数据条件（JSON）'
    )
    _target_flags(parser)


def _export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help='a JSON document a line, "-" prints them / 每行一个 JSON 文档',
    )
    _pair_flag(parser)
    _target_flags(parser)


def _import_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", metavar="FILE", help="a JSON document a line / 每行一个 JSON 文档"
    )
    _pair_flag(parser)
    _encoding_flag(parser)
    _chunk_flags(parser)
    _target_flags(parser)


def _backup_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the collection / 集合名称")
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="to write, replaced if it is there / 备份文件"
    )
    add_flags(parser, "data", "log_level")


def _restore_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="that backup has written / 备份文件"
    )
    parser.add_argument("--collection", help="name, if not its own / 集合名称，默认为原名")
    parser.add_argument(
        "--force", action="store_true", help="replace one of that name / 覆盖同名集合"
    )
    add_flags(parser, "data", "log_level")


def _check_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--collection", help="only this one / 仅检查此集合 (default: all 全部)")
    add_flags(parser, "data", "log_level")


def _reindex_flags(parser: argparse.ArgumentParser) -> None:
    _chunk_flags(parser)
    _target_flags(parser)


def _doctor_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs / 输出 JSON")
    add_flags(parser)


def _collections_flags(parser: argparse.ArgumentParser) -> None:
    _url_flag(parser)
    add_flags(parser, "model", "data", "log_level")


def _key_flags(parser: argparse.ArgumentParser) -> None:
    parsers = parser.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = parsers.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        add_flags(added, "keys", "log_level")
        return added

    new = add("new", commands.key_new, "make a key and show it once / 创建密钥，仅显示一次")
    new.add_argument("name", metavar="NAME", help="whose it is / 密钥名称")
    new.add_argument(
        "--scopes",
        required=True,
        help="some of embed,search,write,admin,metrics / 权限范围，用逗号分隔",
    )
    new.add_argument("--expires", metavar="DATE", help="its last day, YYYY-MM-DD in UTC / 到期日")
    new.add_argument(
        "--requests-per-minute", type=_positive, metavar="N", help="at most / 每分钟请求数上限"
    )
    new.add_argument(
        "--tokens-per-minute", type=_positive, metavar="N", help="at most / 每分钟 token 数上限"
    )
    add("list", commands.key_list, "tell names, scopes and quotas / 列出密钥")
    remove = add("remove", commands.key_remove, "take a key back / 删除密钥")
    remove.add_argument("name", metavar="NAME", help="of the key / 密钥名称")


def _target_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--collection", default="default", help="name / 集合名称 (default: default)"
    )
    _url_flag(parser)
    add_flags(parser, "model", "data", "lanes", "log_level")


def _url_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", help="of a running server, instead of --data / 访问运行中的服务，而不是 --data"
    )
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help=f"that holds the key the server asks for, if not {API_KEY} / 存放密钥的文件",
    )


def _encoding_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoding", default="utf-8", help="of the files / 文件编码 (default: utf-8)"
    )


def _chunk_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chunk-tokens",
        type=_natural,
        help="cut documents into parts of so many, 0 not at all / 片段长度，0 不切分"
        " (default: what the model reads 模型可读长度)",
    )
    parser.add_argument(
        "--chunk-overlap",
        type=_natural,
        help="tokens repeated from the part before / 片段重叠 (default: an eighth, 64 at most)",
    )


def _pair_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair",
        nargs=2,
        type=Path,
        metavar=("INDEX.faiss", "TEXTS.txt"),
        help="vectors in a FAISS index, and their texts, one a line / FAISS 索引与逐行文本",
    )


def _positive(text: str) -> int:
    if not _is_natural(text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0 / 需要正整数")
    return int(text)


def _natural(text: str) -> int:
    if not _is_natural(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number / 需要非负整数")
    return int(text)


def _is_natural(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object / 不是 JSON 对象")
    return found
