"""The sources of settings: flags, environment variables, a TOML file, and the defaults.

The first one wins. `config` defines the settings; this module reads text and TOML for it without
checking values. An unknown name is an error everywhere and names the nearest setting: a typing mistake
must not pass unseen.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from server.errors import BadSettings
from server.messages.message import Message

ENV_PREFIX = "INKWELL_"
# The key that commands send to a running server. It is neither a setting nor a flag: all users of a
# machine see the arguments of its processes.
API_KEY = "INKWELL_API_KEY"
# Secrets of vector databases, each under the name of its database: for the same reason.
DATABASE_SECRET = "INKWELL_VECTOR_DATABASE_SECRET_"
# The file in which the prompt of `search` keeps what was typed; empty for none. It is no setting of a server.
HISTORY = "INKWELL_HISTORY"
# Kubernetes sets NAME_SERVICE_HOST, NAME_PORT and more for each Service of a namespace. If the name begins
# with inkwell, they look like settings.
SERVICE_HOST = re.compile(rf"({ENV_PREFIX}(?:\w+_)?)SERVICE_HOST")
# The flag --config and the variable INKWELL_CONFIG name the file; it is not a setting in the file.
FILE = "config"


DEFAULT = Message("default")


class Given(NamedTuple):
    """A value as it was written, and its origin.

    value: one text or several, or any TOML value. folder: relative paths start there.
    """

    value: Any
    origin: Message
    folder: Path = Path()


def gather(
    known: Collection[str],
    environ: Mapping[str, str],
    flags: Mapping[str, str | Sequence[str] | None],
) -> dict[str, Given]:
    """Return the given values of known settings by name; raises BadSettings for other names."""
    variables = {env_name(name): name for name in (*known, FILE)}
    unknown = {each for each in environ if each.startswith(ENV_PREFIX)} - variables.keys()
    for variable in sorted(unknown):
        if link := SERVICE_HOST.fullmatch(variable):
            raise _of_service(link[1], variable)
    for variable in sorted(unknown - {API_KEY, HISTORY}):
        if variable.startswith(DATABASE_SECRET):
            continue
        raise _unknown(variable, variables, Message("the environment"))
    found: dict[str, Given] = {}
    place = flags.get(FILE) or environ.get(env_name(FILE))
    if place:
        found |= _from_file(Path(str(place)), known)
    for variable, name in variables.items():
        if variable in environ and name != FILE:
            origin = Message("variable {variable}", variable=variable)
            found[name] = Given(environ[variable], origin)
    for name, value in flags.items():
        if value is not None and name != FILE:
            flag = f"--{name.replace('_', '-')}"
            found[name] = Given(value, Message("flag {flag}", flag=flag))
    return found


def env_name(setting: str) -> str:
    return ENV_PREFIX + setting.upper()


def _from_file(path: Path, known: Collection[str]) -> dict[str, Given]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(
            "config file {path} cannot be read: {reason}",
            path=path,
            reason=os.strerror(error.errno or 0),
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(
            "config file {path} is not TOML: {error}", path=path, error=error
        ) from None
    for name in content:
        if name not in known:
            raise _unknown(name, known, Message("config file {path}", path=path))
    origin = Message("file {path}", path=path)
    return {name: Given(value, origin, path.parent) for name, value in content.items()}


def _of_service(prefix: str, variable: str) -> BadSettings:
    name = prefix.rstrip("_").lower().replace("_", "-")
    return BadSettings(
        "the environment has {variable}: Kubernetes sets it and others, such as {prefix}PORT, "
        "for a Service named {name}, and they are not settings; add `enableServiceLinks: false` "
        "to the pod's spec, or rename the Service",
        variable=variable,
        prefix=prefix,
        name=name,
    )


def _unknown(name: str, known: Collection[str], place: Message) -> BadSettings:
    near = difflib.get_close_matches(name, known, 1, cutoff=0)
    return BadSettings(
        "{place} has the unknown setting {name}; did you mean {near}?",
        place=place,
        name=name,
        near=near[0],
    )
