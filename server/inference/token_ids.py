"""Token ids that clients send instead of texts, as texts again, where the operator says whose ids they are.

Ids of one vocabulary mean nothing in another, and nothing in a request says which one they are of. So they
are refused unless --token-ids names the vocabulary. Decoding is exact: ids that no text has are refused.
"""

import asyncio
import base64
import codecs
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from server.errors import BadSettings, InvalidRequest, RequestTooLarge
from server.inference.engine import Engine

# The served model's own vocabulary, and that of OpenAI's embedding models, which LangChain sends by default.
MODEL, CL100K = "model", "cl100k_base"
# Of the file as OpenAI publishes it. Every line has a token in base64 and its id.
CL100K_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
CL100K_BYTES = 1_681_126
SPECIAL: Mapping[int, bytes] = {
    100257: b"<|endoftext|>",
    100258: b"<|fim_prefix|>",
    100259: b"<|fim_middle|>",
    100260: b"<|fim_suffix|>",
    100276: b"<|endofprompt|>",
}
# OpenAI takes 300,000 in one request.
MAX_IDS = 1 << 20
# More ids are decoded in a thread: these take about 1 ms.
MAX_IDS_ON_LOOP = 2048
# Bytes of UTF-8 that continue a character, of which it has at most three.
CONTINUING = bytes(range(0x80, 0xC0))

Rows = Sequence[Sequence[int]]


class TokenIds:
    """Texts of token ids, by the vocabulary that --token-ids names."""

    def __init__(self, setting: str) -> None:
        """Read the vocabulary. setting: of --token-ids; raises BadSettings where it is of no use."""
        name, _, file = setting.partition("=")
        self._allowed = bool(setting)
        self._cl100k: Sequence[bytes] | None = None
        if name == CL100K and file:
            self._cl100k = read_cl100k(Path(file))
        elif setting not in ("", MODEL):
            raise BadSettings(
                "token_ids {setting!r} is neither model nor cl100k_base=FILE; FILE is cl100k_base.tiktoken, "
                "which caches of the package tiktoken hold as 9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
                setting=setting,
            )

    async def texts(self, rows: Sequence[Any], engine: Engine) -> list[str]:
        """Return the text of each row of token ids; raises InvalidRequest or RequestTooLarge."""
        if not self._allowed:
            raise InvalidRequest(
                "input must be text, not token ids: nothing says of which vocabulary they are; with"
                " LangChain set check_embedding_ctx_length=False, or start the server with --token-ids"
                " cl100k_base=FILE, or --token-ids model for ids of the served model",
                param="input",
            )
        checked = _checked(rows)
        decode: Callable[[Rows], list[str]] = engine.model.tokenizer.texts_of
        if self._cl100k is not None:
            decode = self._of_cl100k
        try:
            if sum(map(len, checked)) <= MAX_IDS_ON_LOOP:
                return decode(checked)
            return await asyncio.to_thread(decode, checked)
        except ValueError as error:
            raise InvalidRequest(str(error), param="input") from None

    def _of_cl100k(self, rows: Rows) -> list[str]:
        table = cast(Sequence[bytes], self._cl100k)
        return [_text(index, row, table) for index, row in enumerate(rows)]


def read_cl100k(path: Path) -> Sequence[bytes]:
    """Return the bytes of each token of cl100k_base by its id; raises BadSettings for another file."""
    try:
        with path.open("rb") as file:
            content = file.read(CL100K_BYTES + 1)
    except OSError as error:
        raise BadSettings(
            "token_ids: {path} cannot be read: {reason}",
            path=path,
            reason=os.strerror(error.errno or 0),
        ) from None
    if hashlib.sha256(content).hexdigest() != CL100K_SHA256:
        raise BadSettings(
            "token_ids: {path} is not cl100k_base.tiktoken as OpenAI publishes it: its SHA-256 is not "
            "{wanted}",
            path=path,
            wanted=CL100K_SHA256,
        )
    # In the file the ids count from 0 without a gap.
    return [base64.b64decode(line.split()[0]) for line in content.splitlines()]


def _checked(rows: Sequence[Any]) -> Rows:
    """Return the rows, which may be anything, as rows of ids."""
    count = sum(len(row) for row in rows if isinstance(row, list))
    if count > MAX_IDS:
        raise RequestTooLarge(
            f"the request has {count} token ids, at most {MAX_IDS} are taken at once", param="input"
        )
    for index, row in enumerate(rows):
        if not isinstance(row, list) or any(type(each) is not int for each in row):
            raise InvalidRequest(f"input[{index}] is not a list of token ids only", param="input")
    return rows


def _text(index: int, row: Sequence[int], table: Sequence[bytes]) -> str:
    pieces = []
    for each in row:
        piece = table[each] if 0 <= each < len(table) else SPECIAL.get(each)
        if piece is None:
            raise ValueError(f"input[{index}]: {each} is no token id of {CL100K}")
        pieces.append(piece)
    # Clients cut long texts between tokens, which may be inside a character: its bytes are left out.
    data = b"".join(pieces)
    begin = min(3, len(data) - len(data.lstrip(CONTINUING)))
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data[begin:])
    except UnicodeDecodeError:
        raise ValueError(f"input[{index}]: these ids of {CL100K} are not UTF-8 text") from None
