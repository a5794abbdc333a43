"""The search page: GET / for browsers, and its files under /ui/.

The page is plain HTML, CSS and ES modules in the folder `app`, without a build step; its README describes them.
Indents and comments are for readers of this repository, and are not sent.
All files are read once, at start. A browser keeps a copy of each and asks whether it is still the same.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from starlette.types import Scope

from server.api.native_errors import NATIVE
from server.api.operation import Call, Operation
from server.api.replies import Reply
from server.api.web.static import CACHING, SECURITY, TYPES, header, is_kept
from server.errors import RouteNotFound

FOLDER = Path(__file__).with_name("app")
INDEX = "index.html"
# Nothing inline, nothing from another host. Trusted types without any policy: text never becomes HTML or code.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
# The answer at "/" depends on this header.
VARY = (b"vary", b"accept")
# A blank before a colon is no such blank: it joins two selectors.
BESIDE_SIGNS = re.compile(r" *[{};,] *|: +")
# In scripts: a text, which stays as it is, and signs that need no blanks.
TEXT = re.compile(r'("(?:[^"\\]|\\.)*"|`[^`]*`)')
SIGNS = re.compile(r" ?(=>|[=!]==|&&|\|\||[,;{}()?:=<>*]) ?")
# What may begin a regular expression, a comment or a text of more than one piece.
UNCLEAR = re.compile("[/`'\"]")


def operations() -> list[Operation]:
    """Return the operation that serves the page's files."""
    files = replies()

    async def file(call: Call) -> Reply:
        """A file of the search page. The answer is 304 if the client's copy is still the same."""
        name = call.scope["path_params"]["file"]
        if name not in files:
            raise RouteNotFound(f"no such path: {call.scope['path']}")
        return fresh(call.scope, files[name])

    about = "A file of the search page"
    return [Operation(NATIVE, "GET", "/ui/{file:path}", file, about, "nothing", plain="*/*")]


def for_browsers(plain: Operation) -> Operation:
    """Return the operation that answers browsers with the page, and every other client as before."""
    page = replies()[INDEX]
    page = page._replace(headers=[*page.headers, VARY])

    async def home(call: Call) -> Reply:
        """The search page for browsers, which accept text/html. Other clients get a line of text."""
        if b"text/html" in header(call.scope, b"accept"):
            return fresh(call.scope, page)
        reply = await plain.handler(call)
        return reply._replace(headers=[*reply.headers, VARY])

    return plain._replace(handler=home)


@cache
def replies() -> Mapping[str, Reply]:
    """Return the reply for each file of the page, by its path in the folder."""
    found = sorted(path for path in FOLDER.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(FOLDER).as_posix(): _reply(path) for path in found}


def fresh(scope: Scope, reply: Reply) -> Reply:
    """Return the reply, or 304 without a body if the client has this version of the file."""
    kept = is_kept(scope, dict(reply.headers)[b"etag"])
    return reply._replace(body=b"", status=304) if kept else reply


def _reply(path: Path) -> Reply:
    content = path.read_bytes()
    if path.suffix in (".js", ".css"):
        text = without_comments(content.decode())
        content = (without_blanks(text) if path.suffix == ".css" else squeezed(text)).encode()
    tag = b'"%b"' % hashlib.sha256(content).hexdigest()[:16].encode()
    return Reply(
        content,
        headers=[(b"etag", tag), CACHING, (b"content-security-policy", POLICY.encode()), *SECURITY],
        content_type=TYPES[path.suffix],
    )


def without_blanks(style: str) -> str:
    """Return a style sheet without blanks that stand beside its signs; none of ours stands in a text."""
    return BESIDE_SIGNS.sub(lambda found: found[0].strip(" "), style)


def squeezed(script: str) -> str:
    """Return a script without blanks beside its signs, but for lines in which they may be part of a text."""
    return "\n".join(map(_squeezed_line, script.split("\n")))


def _squeezed_line(line: str) -> str:
    pieces = TEXT.split(line)
    code = pieces[::2]
    # subtle: with more than two, one template may stand in another.
    if line.count("`") > 2 or any(map(UNCLEAR.search, code)):
        return line
    pieces[::2] = [SIGNS.sub(r"\1", piece) for piece in code]
    return "".join(pieces)


def without_comments(text: str) -> str:
    """Return a script or a style sheet without indents and without lines that are comments.

    That is a ninth of the page. A line keeps its number, so that an error in a browser's console is found here.
    """
    lines = (line.strip() for line in text.splitlines())
    return "\n".join("" if line.startswith(("//", "/*")) else line for line in lines)
