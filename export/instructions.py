"""Instructions that published models expect but whose checkpoint folders do not state.

A folder's own prompts win over this table, and --query-instruction wins over both.
"""

import re
from collections.abc import Mapping

# model name pattern -> (query instruction, document instruction), as the model cards give them
KNOWN = (
    # Trained without an instruction, as their names say; so before the models they resemble.
    (re.compile(r"bge-.*noinstruct"), ("", "")),
    (re.compile(r"bge-(small|base|large)-zh"), ("为这个句子生成表示以用于检索相关文章：", "")),
    (
        re.compile(r"bge-(small|base|large)-en"),
        ("Represent this sentence for searching relevant passages: ", ""),
    ),
    (re.compile(r"(^|[/-])e5-(small|base|large)|multilingual-e5"), ("query: ", "passage: ")),
)


def instructions(
    model_id: str, prompts: Mapping[str, str], default_prompt: str | None = None
) -> tuple[str, str]:
    """Return the (query, document) instructions of a model, empty strings where it has none.

    A kind of text without its own prompt gets the default one where the folder names one:
    sentence-transformers' encode() puts it before every text.
    """
    default = default_prompt or ""
    own = [
        next((prompts[name] for name in names if name in prompts), None)
        for names in (("query", default), ("document", "passage", "corpus", default))
    ]
    if own != [None, None]:
        return own[0] or "", own[1] or ""
    for pattern, known in KNOWN:
        if pattern.search(model_id.lower()):
            return known
    return "", ""
