"""What each command does; everything a person reads is Chinese and English.

A command loads what it needs when it runs: --help answers at once, and a backup needs no model.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.clock import now, wall_s
from server.config import Config, as_toml, effective, flags_given, on_loopback
from server.config_sources import API_KEY
from server.errors import BadArtifact, BadSettings

if TYPE_CHECKING:
    from server.cli.local import Local
    from server.cli.target import Chunks, Target
    from server.store.search import Hit
    from server.system.systemd import Supervisor

OPEN = (
    "listening on %s without keys: whoever reaches this address may read and delete everything; make keys"
    " with `python -m server key new` and give --keys, or listen on 127.0.0.1."
    " 未配置密钥却监听非本机地址：任何能访问该地址的人都可读取和删除全部数据；"
    "请用 `python -m server key new` 创建密钥并指定 --keys，或仅监听 127.0.0.1"
)

QUOTAS = (
    "each of the %d processes counts for itself: a key has up to so many times its quota; divide the"
    " quotas, or leave --workers out."
    " %d 个进程各自计数：密钥最多可用到其限额的相应倍数；请按进程数缩小限额，或不使用 --workers"
)
OLD_KEYS = (
    "运行中的服务在重新读取密钥文件（SIGHUP）或重启之前，仍按旧文件执行。\n"
    "a running server goes by the file as it was until it reads its keys again (SIGHUP) or is restarted\n"
)

log = logging.getLogger(__name__)
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def serve(config: Config, arguments: Namespace) -> int:
    # Until there is something to reload.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from server.system.systemd import Supervisor

    with contextlib.closing(Supervisor.of(arguments.variables, os.getpid())) as supervisor:
        supervisor.tell("STATUS=loading the models 正在加载模型")
        _serve(config, arguments, supervisor)
    return 0


def _serve(config: Config, arguments: Namespace, supervisor: "Supervisor") -> None:
    from server.app import create_app
    from server.inference.registry import opened
    from server.net.certificates import Tls
    from server.net.reload import Reload
    from server.net.server import listen
    from server.net.worker_pool import Workers, share_of
    from server.store.folder import DataFolder
    from server.system.cpu import cpu_budget

    if config.keys is None and config.tls_client_ca is None and not on_loopback(config.host):
        log.warning(OPEN, config.host)
    began, config = config, share_of(config, cpu_budget())
    tls = Tls.of(config)

    def read() -> Config:
        return effective(arguments.variables, flags_given(arguments)).config

    models = opened(config)
    workers = Workers(config)
    # The app closes it when it ends; this is for one that cannot begin.
    with contextlib.closing(DataFolder(config.data, holder=_url(config))) as folder:
        app = create_app(models, config, folder, workers.pages)
        # They are the app's from here on, which may let them go.
        del models
        if config.workers > 1 and app.access.has_quotas:
            log.warning(QUOTAS, config.workers, config.workers)
        listen(app, config, workers, supervisor, Reload(began, config, read, tls), tls)


def _url(config: Config) -> str:
    """Where a command on this machine reaches the server; nothing where the kernel picks the port."""
    if not config.port:
        return ""
    host = "127.0.0.1" if config.host == "0.0.0.0" else config.host
    scheme = "http" if config.tls_cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{config.port}"


@contextlib.contextmanager
def _local(config: Config, arguments: Namespace) -> Iterator[tuple["Local", Run]]:
    """The collection in this process, and what waits for its answers."""
    from server.cli.local import Local

    with asyncio.Runner() as runner:
        local = Local(config, arguments.collection, runner.get_loop())
        try:
            yield local, runner.run
        finally:
            runner.run(local.close())


@contextlib.contextmanager
def _target(config: Config, arguments: Namespace) -> Iterator[tuple["Target", Run]]:
    """The same, or the collection of a running server where --url is given."""
    if arguments.url is None:
        with _local(config, arguments) as opened:
            yield opened
        return
    from server.cli.remote import Remote

    with asyncio.Runner() as runner:
        yield Remote(arguments.url, arguments.collection, _secret(arguments)), runner.run


def _secret(arguments: Namespace) -> str | None:
    """The key for --url; raises BadSettings, which never says the key."""
    if arguments.key_file is None:
        given = arguments.variables.get(API_KEY)
        return _checked(given, API_KEY) if given else None
    try:
        text = arguments.key_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else "not UTF-8"
        raise BadSettings(
            "key file {key_file} cannot be read: {why}",
            key_file=arguments.key_file,
            why=why,
        ) from None
    return _checked(text.strip(), str(arguments.key_file))


def _checked(secret: str, place: str) -> str:
    if not (secret.isascii() and secret.isprintable()) or not secret or " " in secret:
        raise BadSettings(
            "{place} holds no key: it must be one line of letters, digits, - and _",
            place=place,
        )
    return secret


# --- documents ------------------------------------------------------------------------------------


def index(config: Config, arguments: Namespace) -> int:
    from server.cli.ingest import index_documents
    from server.cli.readers import find_source, read_documents

    chunks = _chunks(arguments)
    source = find_source(arguments.source, format=arguments.format, encoding=arguments.encoding)
    with _target(config, arguments) as (target, run):
        run(target.prepare(chunks))
        documents = read_documents(source)
        work = index_documents(target, documents, source.n_bytes, clock=now, progress=sys.stderr)
        sys.stdout.write(str(run(work)))
    return 0


def _chunks(arguments: Namespace) -> "Chunks":
    from server.cli.target import UNSAID
    from server.collections.chunking import usual_overlap
    from server.store.records import ChunkRules

    size, overlap = arguments.chunk_tokens, arguments.chunk_overlap
    if not size:
        if overlap is not None:
            raise BadSettings(
                "--chunk-overlap {overlap} needs --chunk-tokens above 0",
                overlap=overlap,
            )
        return UNSAID if size is None else None
    overlap = usual_overlap(size) if overlap is None else overlap
    if overlap > size // 2:
        raise BadSettings(
            "--chunk-overlap {overlap} is outside 0 to {size}, half of --chunk-tokens",
            overlap=overlap,
            size=size // 2,
        )
    return ChunkRules(size, overlap)


def search(config: Config, arguments: Namespace) -> int:
    from server.cli.prompt import one_shot, run_prompt
    from server.cli.target import Question

    query, mode = arguments.query, arguments.mode
    with _target(config, arguments) as (target, run):

        def ask(text: str) -> Sequence["Hit"]:
            question = Question(text, arguments.top_k, mode, arguments.filter)
            found: Sequence[Hit] = run(target.search(question))
            return found

        count = run(target.count())
        if query is None:
            run_prompt(ask, target.name, count, mode)
        else:
            one_shot(ask, target.name, count, query, mode, as_json=arguments.json)
    return 0


def export(config: Config, arguments: Namespace) -> int:
    _check_pair(arguments, arguments.file)
    from server.cli.ingest import Meter
    from server.cli.transfer import export_documents, export_pair

    meter = Meter(sys.stderr, now)
    if arguments.pair is None:
        with _target(config, arguments) as (target, run):
            number = run(export_documents(target, arguments.file, meter))
        sys.stderr.write(f"已导出 {number:,} 条文档\nexported {number:,} documents\n")
        return 0
    vectors, texts = arguments.pair
    with _local(config, arguments) as (local, _):
        number, joined = export_pair(local.collection, vectors, texts, meter)
    sys.stderr.write(
        f"已导出 {number:,} 个向量；{joined:,} 条文本中的换行已改为空格\n"
        f"exported {number:,} vectors; line breaks became spaces in {joined:,} texts\n"
    )
    return 0


def import_(config: Config, arguments: Namespace) -> int:
    _check_pair(arguments, arguments.source)
    if arguments.pair is None:
        arguments.format = "jsonl"
        return index(config, arguments)
    from server.cli.transfer import Pair, import_pair

    vectors, texts = arguments.pair
    chunks, pair = _chunks(arguments), Pair(vectors, texts, arguments.encoding)
    with _local(config, arguments) as (local, run):
        run(local.prepare(chunks))
        done = run(import_pair(local, pair, clock=now, progress=sys.stderr))
    sys.stdout.write(f"{done}空行 {pair.blank:,} 行\nblank lines: {pair.blank:,}\n")
    return 0


def _check_pair(arguments: Namespace, file: str | None) -> None:
    if (file is None) == (arguments.pair is None):
        raise BadSettings("either FILE or --pair is needed")
    if arguments.pair and arguments.url:
        raise BadSettings(
            "--pair reads and writes vectors where they are stored: stop the server, and leave "
            "out --url",
        )


# --- upkeep ---------------------------------------------------------------------------------------


def backup(config: Config, arguments: Namespace) -> int:
    from server.store.maintenance import backup

    size = backup(config.data, arguments.name, arguments.file)
    sys.stdout.write(f"已备份 backed up {arguments.name}: {size:,} 字节 bytes\n")
    return 0


def restore(config: Config, arguments: Namespace) -> int:
    from server.store.maintenance import restore

    found = restore(config.data, arguments.file, arguments.collection, force=arguments.force)
    sys.stdout.write(f"已恢复 restored {found.name}: {found.documents:,} 条文档 documents\n")
    return 0


def check(config: Config, arguments: Namespace) -> int:
    from server.store.maintenance import check

    return 0 if check(config.data, arguments.collection, print) else 1


def reindex(config: Config, arguments: Namespace) -> int:
    from server.cli.ingest import Meter

    chunks = _chunks(arguments)
    with _target(config, arguments) as (target, run):
        meter = Meter(sys.stderr, now)

        def show(done: int, total: int) -> None:
            share = min(done / max(total, 1), 1)
            meter.show(f"已重建 reindexed {done:,}/{total:,}", done, share)

        try:
            run(target.reindex(chunks, show))
        finally:
            meter.finish()
    return 0


def collections(config: Config, arguments: Namespace) -> int:
    if arguments.url is None:
        from server.store.maintenance import collections

        found = collections(config.data, _known_models(config))
    else:
        from server.cli.remote import Remote

        found = asyncio.run(Remote(arguments.url, "", _secret(arguments)).listed())
    for name, documents, model in found:
        sys.stdout.write(f"{name}  {documents:,} 条文档 documents  模型 model {model}\n")
    if not found:
        sys.stdout.write("没有集合 · no collections\n")
    return 0


def _known_models(config: Config) -> Mapping[str, str]:
    """The ids of the models that --model names, by fingerprint; without those that are not there."""
    from server.inference.manifest import MANIFEST_FILE, parse_manifest

    found = {}
    for place in config.model:
        with contextlib.suppress(BadArtifact):
            manifest = parse_manifest(place.folder / MANIFEST_FILE)
            found[manifest.fingerprint] = place.name or manifest.model_id
    return found


# --- keys -----------------------------------------------------------------------------------------


def key_new(config: Config, arguments: Namespace) -> int:
    """The key goes to standard output and nowhere else; what is said about it to standard error."""
    from server.auth.keys import add_key, new_key
    from server.auth.quota import Quota

    quota = Quota(arguments.requests_per_minute, arguments.tokens_per_minute)
    secret, key = new_key(arguments.name, arguments.scopes, arguments.expires, quota)
    add_key(_keys_file(config), key)
    sys.stdout.write(f"{secret}\n")
    sys.stderr.write(f"请妥善保存：密钥只显示这一次。\nkeep it: it is shown this once\n{OLD_KEYS}")
    return 0


def key_list(config: Config, _: Namespace) -> int:
    from server.auth.keys import read_keys

    keys = read_keys(_keys_file(config))
    for key in keys:
        until = f"  至 until {key.expires}" if key.expires else ""
        if key.expired(wall_s()):
            until += " 已过期 expired"
        limits = {"请求 requests": key.requests_per_minute, "token": key.tokens_per_minute}
        quota = "".join(f"  {n:,} {what}/min" for what, n in limits.items() if n is not None)
        sys.stdout.write(f"{key.name}  {','.join(key.scopes)}{until}{quota}\n")
    if not keys:
        sys.stdout.write("没有密钥 · no keys\n")
    return 0


def key_remove(config: Config, arguments: Namespace) -> int:
    from server.auth.keys import remove_key

    remove_key(_keys_file(config), arguments.name)
    sys.stdout.write(f"已删除 removed {arguments.name}\n")
    sys.stderr.write(OLD_KEYS)
    return 0


def _keys_file(config: Config) -> Path:
    if config.keys is None:
        raise BadSettings(
            "no keys file is named: give --keys FILE, INKWELL_KEYS or `keys` in the config file",
        )
    return config.keys


def doctor(config: Config, arguments: Namespace) -> int:
    """Status 1 where a server with these settings would not start or could lose what it acknowledged."""
    import json

    from server.doctor.examine import examine
    from server.doctor.facts import gather
    from server.doctor.findings import as_json, as_text, healthy
    from server.net.worker_pool import share_of
    from server.system.cpu import cpu_budget

    findings = examine(gather(share_of(config, cpu_budget())))
    if arguments.json:
        sys.stdout.write(json.dumps(as_json(findings), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(as_text(findings))
    return 0 if healthy(findings) else 1


def show_config(config: Config, arguments: Namespace) -> int:
    """A TOML file that would have the same effect, with where each value came from."""
    sys.stdout.write(as_toml(config, arguments.origins))
    return 0
