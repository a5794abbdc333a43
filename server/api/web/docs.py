"""GET /docs: a page to try each route, and to read what it takes and answers.

Its script makes it from /openapi.json. Its files and its policy are those of the search page.
"""

from server.api.native_errors import NATIVE
from server.api.operation import Call, Operation
from server.api.replies import Reply
from server.api.web.page import fresh, replies

PAGE = "docs.html"


def operations() -> list[Operation]:
    page = replies()[PAGE]

    async def docs(call: Call) -> Reply:
        """A page for people, in English and Chinese, to try each route."""
        return fresh(call.scope, page)

    about = "This server's routes"
    return [Operation(NATIVE, "GET", "/docs", docs, about, "nothing", plain="text/html")]
