"""GET /docs: a page that shows /openapi.json to people and lets them try each route.

Everything is in one file. Its policy allows connections to this server only.
"""

import base64
import hashlib
import re
from pathlib import Path

from server.api.native_errors import NATIVE
from server.api.operation import Call, Operation
from server.api.replies import Headers, Reply

PAGE = Path(__file__).with_name("page.html")


def operations() -> list[Operation]:
    page = PAGE.read_text(encoding="utf-8")
    reply = Reply(page.encode(), headers=_headers(page), content_type=b"text/html; charset=utf-8")

    async def docs(_: Call) -> Reply:
        """A page for people, in English and Chinese. Its script makes it from /openapi.json."""
        return reply

    about = "This server's routes"
    return [Operation(NATIVE, "GET", "/docs", docs, about, "nothing", plain="text/html")]


def policy(page: str) -> str:
    """Return the content security policy: this style, this script, requests to this server."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(page, 'style')}",
            f"script-src {_hash(page, 'script')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _headers(page: str) -> Headers:
    return [
        (b"content-security-policy", policy(page).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]


def _hash(page: str, element: str) -> str:
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
