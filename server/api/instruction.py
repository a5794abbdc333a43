"""The words by which clients say what a text is for, and the instruction that each word chooses.

One table serves all dialects: a word that one client's API has means the same in every other. A word that
is not in it is refused, because a vector with the wrong instruction looks like any other.
"""

from collections.abc import Mapping

import msgspec

from server.errors import InvalidRequest, shown
from server.inference.registry import Choice
from server.types import InputType

# Words in lower case. Those of tasks without a query or a passage get no instruction.
INSTRUCTIONS: Mapping[str, InputType] = {
    # This server, OpenAI-compatible gateways, Voyage, sentence-transformers' prompt names.
    "query": "query",
    "document": "document",
    "none": "none",
    # NVIDIA, Weaviate, E5.
    "passage": "document",
    # Cohere.
    "search_query": "query",
    "search_document": "document",
    "classification": "none",
    "clustering": "none",
    # Jina.
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "separation": "none",
    "text-matching": "none",
    # Google, which writes them in capitals.
    "retrieval_query": "query",
    "retrieval_document": "document",
    "question_answering": "query",
    "fact_verification": "query",
    "semantic_similarity": "none",
}


class Instructed(msgspec.Struct, kw_only=True):
    """The keys by which clients say what their texts are for. One is enough; several must agree.

    Values: query, search_query, retrieval.query and the like; document, passage, search_document and the
    like; none, classification, clustering and the like for no instruction. Empty counts as left out.
    """

    input_type: str | None = None
    task: str | None = None
    task_type: str | None = None
    prompt_name: str | None = None


KEYS = Instructed.__struct_fields__


def instruction_of(request: Instructed, choice: Choice) -> InputType:
    """Return which instruction the request asks for; without a word, what the model's name says.

    Raises InvalidRequest for an unknown word, and for words that contradict each other.
    """
    given = {key: word for key in KEYS if (word := getattr(request, key))}
    found = {key: input_type_of(word, key) for key, word in given.items()}
    if len(set(found.values())) > 1:
        said = " and ".join(f"{key} {shown(word)}" for key, word in given.items())
        raise InvalidRequest(f"{said} contradict each other; give one of them", param=min(given))
    return next(iter(found.values()), choice.input_type or "document")


def input_type_of(word: str, key: str) -> InputType:
    """Return what a word means. key: of the request, for the error."""
    found = INSTRUCTIONS.get(word.lower())
    if found is None:
        raise InvalidRequest(
            f"{key} {shown(word)} is not known; use one of {', '.join(INSTRUCTIONS)}", param=key
        )
    return found
