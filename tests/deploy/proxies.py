"""nginx with the examples of deploy/setups: their words replaced by what this machine has, and one process."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.proxies import NoProxy, free_port, nginx_with


@contextlib.contextmanager
def configured(
    examples: Sequence[str], words: Mapping[str, str], folder: Path, certificate: Path
) -> Iterator[str]:
    """Run nginx with the examples; yields its address. words: what is replaced in them, all of which must be there."""
    folder.mkdir()
    own = free_port()
    text = "\n".join(examples)
    local = {
        **words,
        "listen 443": f"listen 127.0.0.1:{own}",
        "/etc/nginx/inkwell.": f"{certificate}.",
        "/var/log/nginx/inkwell.log": str(folder / "access.log"),
        "/run/inkwell-": f"{folder}/memory-",
    }
    for word, instead in local.items():
        assert word in text, word
        text = text.replace(word, instead)
    try:
        with nginx_with(text, folder, own):
            yield f"https://127.0.0.1:{own}"
    except NoProxy as missing:
        pytest.skip(str(missing))


def group_of(example: str, method: str, path: str) -> str:
    """Return the upstream that the example's map gives a request, as nginx reads it: the first expression that fits."""
    found = re.search(r'map "\$request_method \$uri" \$\w+ \{\n(.*?)\n\}', example, re.DOTALL)
    assert found
    default = ""
    for line in found[1].splitlines():
        pattern, group = line.strip().removesuffix(";").rsplit(" ", 1)
        if pattern == "default":
            default = group
        elif re.search(pattern.strip('"').removeprefix("~"), f"{method} {path}"):
            return group
    return default
