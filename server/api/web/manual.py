"""GET /manual: the documents of this version, in Chinese and English, from one packed file.

`make manual` builds the file. Nothing else on the disk can be reached: a page is looked up among the names
in the file. The pages load nothing from other addresses.
"""

import asyncio
import base64
import hashlib
import re
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from starlette.types import Scope

from server.api.native_errors import NATIVE
from server.api.operation import Call, Operation
from server.api.replies import Headers, Reply
from server.api.web.static import CACHING, HTML, NOSNIFF, SECURITY, TYPES, header, is_kept
from server.errors import InternalError, RouteNotFound

PACKED = Path(__file__).with_name("manual.zip")
OTHER_TYPE = b"application/octet-stream"
INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)
# The languages of the manual, the usual one first.
LANGUAGES = ("en", "zh")
LANGUAGE = re.compile(r"\s*([A-Za-z]+)[\w-]*\s*(?:;\s*q=([0-9.]+))?\s*")

# The page at /manual. {forward}: what leads a browser on; {text}: what a person reads.
FRONT = """<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>Inkwell</title>
{forward}{text}
"""
LINKS = """<p><a href="{base}zh/index.html" lang="zh">中文</a></p>
<p><a href="{base}en/index.html" lang="en">English</a></p>"""
NOT_BUILT = """<p lang="en">This server was installed without its manual. In the folder of its source,
<code>make manual</code> builds it; then load this page again. The same pages are in <code>docs/en</code>.</p>
<p lang="zh">本服务安装时没有附带手册。在源代码目录中运行 <code>make manual</code> 即可生成，然后刷新本页。
同样的内容见 <code>docs/zh</code>。</p>"""


def operations(packed: Path = PACKED) -> list[Operation]:
    """Return the operations that serve the packed manual; it may be built while the server runs."""

    async def front(call: Call) -> Reply:
        """A page that leads to the documents in the browser's language, or says how to build them."""
        return await _front(packed, call, "manual/")

    async def page(call: Call) -> Reply:
        """A page of the documents, or a file that the pages load. `etag` changes with the content."""
        name = str(call.scope["path_params"]["page"])
        if not name:
            return await _front(packed, call, "")
        return await asyncio.to_thread(_file, packed, name, call.scope)

    about, file = "The documents of this server", "One page of the documents"
    return [
        Operation(NATIVE, "GET", "/manual", front, about, "nothing", plain="text/html"),
        Operation(NATIVE, "GET", "/manual/{page:path}", page, file, "nothing", plain="text/html"),
    ]


def preferred(header: str) -> str:
    """Return the language of the manual that an Accept-Language header prefers."""
    best, found = 0.0, LANGUAGES[0]
    for part in header.split(","):
        matched = LANGUAGE.fullmatch(part)
        if matched is not None and (name := matched[1].lower()) in LANGUAGES:
            weight = _weight(matched[2])
            if weight > best:
                best, found = weight, name
    return found


def _weight(text: str | None) -> float:
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 0.0


def policy(page: bytes) -> str:
    """Return the content security policy of a page: what it has inline, and files of this server."""
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for element, content in INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        hashes[element].append(f"'sha256-{digest}'")
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(["script-src 'self'", *dict.fromkeys(hashes[b"script"])]),
            " ".join(["style-src 'self'", *dict.fromkeys(hashes[b"style"])]),
            "img-src 'self' data:",
            # The search of the pages shows a part of each page that it finds.
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def _file(packed: Path, name: str, scope: Scope) -> Reply:
    """Return a file of the packed manual; raises RouteNotFound. On a thread: it reads the disk."""
    try:
        with ZipFile(packed) as files:
            about = files.getinfo(name)
            tag = f'"{about.CRC:08x}-{about.file_size:x}"'.encode()
            headers: Headers = [(b"etag", tag), CACHING]
            if is_kept(scope, tag):
                return Reply(b"", 304, headers)
            return _reply(name, files.read(about), headers)
    except FileNotFoundError:
        raise RouteNotFound("the manual is not built; run `make manual`") from None
    except KeyError:
        raise RouteNotFound(f"the manual has no page {name!r}; /manual leads to all") from None
    except (BadZipFile, OSError) as error:
        raise InternalError(f"the manual cannot be read: {error}; run `make manual`") from None


def _reply(name: str, content: bytes, headers: Headers) -> Reply:
    kind = TYPES.get(Path(name).suffix, OTHER_TYPE)
    if kind == HTML:
        return _page(content, headers)
    return Reply(content, headers=[*headers, NOSNIFF], content_type=kind)


def _page(content: bytes, headers: Headers | None = None) -> Reply:
    own = [(b"content-security-policy", policy(content).encode()), *SECURITY]
    return Reply(content, headers=[*(headers or []), *own], content_type=HTML)


async def _front(packed: Path, call: Call, base: str) -> Reply:
    """Return the page that leads on. base: the way from its address to the folders of the languages."""
    built = await asyncio.to_thread(packed.is_file)
    language = preferred(header(call.scope, b"accept-language").decode("latin-1"))
    goal = f'<meta http-equiv="refresh" content="0; url={base}{language}/index.html">\n'
    forward, text = (goal, LINKS.format(base=base)) if built else ("", NOT_BUILT)
    # Clients learn from this header whether there is a manual.
    link = [(b"link", f'<{base}{language}/index.html>; rel="start"'.encode())] if built else []
    return _page(FRONT.format(language=language, forward=forward, text=text).encode(), link)
