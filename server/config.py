"""Every setting of the server, in one frozen dataclass; the only reader of the environment.

A flag wins over its environment variable, which wins over the default. `--help` and the table in
docs are made from the fields below.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.errors import BadSettings

ENV_PREFIX = "INKWELL_"
DEFAULT_MODEL = Path("models/bge-small-zh-v1.5/onnx-int8")
LOG_LEVELS = ("debug", "info", "warning", "error")


def _setting(default: Any, english: str, chinese: str, **limits: Any) -> Any:
    return field(
        default=default, metadata={"english": english, "chinese": chinese, "limits": limits}
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The effective settings; constructing one checks it."""

    # Beyond loopback only when told: there is no password yet.
    host: str = _setting("127.0.0.1", "address to listen on", "监听地址")
    port: int = _setting(
        8000, "TCP port, 0 takes a free one", "端口，0 表示任选", low=0, high=65535
    )
    model: Path = _setting(DEFAULT_MODEL, "artifact folder made by export", "导出的模型文件夹")
    data: Path = _setting(Path("data"), "folder for collections", "数据文件夹")
    # A name that clients already send, e.g. text-embedding-3-small; the manifest's id always works.
    model_alias: str = _setting("", "another name clients may use for the model", "模型别名")
    # 0: one lane a core of the affinity mask and cgroup quota. Fewer leaves cores to others.
    lanes: int = _setting(
        0, "threads that compute, 0 for one a core", "计算线程数，0 为每核一个", low=0, high=1024
    )
    # Past 256 tokens a batch brings no throughput on a CPU and costs others latency.
    batch_tokens: int = _setting(
        256, "tokens computed together", "单批 token 数", low=1, high=65536
    )
    # Requests of up to this many tokens go before larger ones; about four batches.
    interactive_tokens: int = _setting(
        1024,
        "requests up to this size go first",
        "优先处理的请求上限（token）",
        low=1,
        high=1 << 20,
    )
    # About two seconds of work on two cores: waiting longer, a person has given up.
    interactive_queue_tokens: int = _setting(
        65_536,
        "tokens of small requests that may wait",
        "小请求排队上限（token）",
        low=1,
        high=1 << 30,
    )
    # Two requests of 2,048 texts of 512 tokens.
    bulk_queue_tokens: int = _setting(
        2_097_152,
        "tokens of large requests that may wait",
        "大请求排队上限（token）",
        low=1,
        high=1 << 32,
    )
    # OpenAI's limit; a client that sends more is told to split.
    max_texts: int = _setting(
        2048, "texts in one request", "单个请求的文本数上限", low=1, high=1 << 20
    )
    # 2,048 texts of 512 Chinese characters are 3 MB; JSON escapes may double that and more.
    max_body_bytes: int = _setting(
        32 * 1024 * 1024, "bytes of one request's body", "请求体字节上限", low=1024, high=1 << 32
    )
    # Some 6,000 questions with 512 numbers each: what a team asks in a day, for little memory.
    query_cache_bytes: int = _setting(
        16 * 1024 * 1024,
        "bytes of remembered query vectors",
        "查询向量缓存字节数",
        low=0,
        high=1 << 40,
    )
    # A load balancer usually gives 30 seconds between SIGTERM and SIGKILL.
    shutdown_s: int = _setting(
        25,
        "seconds to finish accepted work at shutdown",
        "停止时完成已接受任务的秒数",
        low=0,
        high=3600,
    )
    log_level: str = _setting("info", "debug, info, warning or error", "日志级别")

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            _check(setting, getattr(self, setting.name))
        if not self.host:
            # To the kernel an empty address is every address: not what an empty variable means.
            raise BadSettings(
                "host is empty; name an address, 0.0.0.0 for all of this machine's",
                "host 为空；请指定地址，0.0.0.0 表示本机所有地址",
            )
        if self.log_level not in LOG_LEVELS:
            raise BadSettings(
                f"log_level {self.log_level!r} is not one of {', '.join(LOG_LEVELS)}",
                f"log_level {self.log_level!r} 不在 {'、'.join(LOG_LEVELS)} 之中",
            )

    @classmethod
    def load(
        cls, environ: Mapping[str, str], flags: Mapping[str, str | None] | None = None
    ) -> "Config":
        """Settings from flags (None: not given), then environment, then defaults."""
        known = {setting.name: setting for setting in dataclasses.fields(cls)}
        values = {}
        for name, setting in known.items():
            text = (flags or {}).get(name)
            if text is None:
                text = environ.get(env_name(name))
            if text is not None:
                values[name] = _parse(setting, text)
        return cls(**values)


def env_name(setting: str) -> str:
    return ENV_PREFIX + setting.upper()


def add_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Give the parser one flag per setting, all of them or those named."""
    for setting in dataclasses.fields(Config):
        if names and setting.name not in names:
            continue
        parser.add_argument(
            "--" + setting.name.replace("_", "-"),
            metavar=_kind(setting).__name__.upper(),
            help=f"{setting.metadata['english']} / {setting.metadata['chinese']}"
            f" (default: {_shown(setting)}, environment: {env_name(setting.name)})",
        )


def flags_given(arguments: argparse.Namespace) -> dict[str, str | None]:
    return {
        setting.name: getattr(arguments, setting.name, None)
        for setting in dataclasses.fields(Config)
    }


def _shown(setting: "dataclasses.Field[Any]") -> str:
    return "none" if setting.default == "" else str(setting.default)


def _kind(setting: "dataclasses.Field[Any]") -> type:
    return Path if isinstance(setting.default, Path) else type(setting.default)


def _parse(setting: "dataclasses.Field[Any]", text: str) -> Any:
    try:
        return _kind(setting)(text)
    except ValueError:
        raise BadSettings(
            f"{setting.name} must be a whole number, not {text!r}",
            f"{setting.name} 必须是整数，而不是 {text!r}",
        ) from None


def _check(setting: "dataclasses.Field[Any]", value: Any) -> None:
    limits = setting.metadata["limits"]
    if limits and not limits["low"] <= value <= limits["high"]:
        low, high = limits["low"], limits["high"]
        raise BadSettings(
            f"{setting.name} {value} is outside {low} to {high}",
            f"{setting.name} 的值 {value} 超出 {low} 到 {high} 的范围",
        )
