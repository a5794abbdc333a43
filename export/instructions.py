"""The instructions that a model expects before queries and documents, and where they come from.

A folder's own prompts win over the table of published models, and --query-instruction wins over both.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from export.known.recognition import Clues, Recognition, by_name, recognise
from export.source.sentence_settings import OF_ALL_TOKENS, SentenceSettings
from server.messages.message import Message

# Names of prompts, in the order of choice; capitals, dots and dashes in them do not matter.
QUERY_NAMES = (
    *("query", "search_query", "s2p_query", "retrieval_query", "web_search_query"),
    *("queries", "question", "search"),
)
DOCUMENT_NAMES = (
    *("document", "passage", "corpus", "search_document", "s2p_document", "retrieval_document"),
    *("retrieval_passage", "documents", "passages", "doc"),
)


@dataclass(frozen=True, slots=True)
class Instructions:
    """Texts before queries and documents, empty where the model has none.

    source: where they come from. warning: why they may be wrong.
    """

    query: str
    document: str
    source: Message
    warning: Message | None = None

    def with_chosen(self, query: str | None, document: str | None) -> "Instructions":
        """Return these with what the command chose; None leaves one unchanged."""
        if query is None and document is None:
            return self
        source = Message("the command line")
        if query is None or document is None:
            source = Message("the command line, then {source}", source=self.source)
        return replace(
            self,
            query=self.query if query is None else query,
            document=self.document if document is None else document,
            source=source,
            warning=self.warning if query is None else None,
        )


def instructions(
    clues: Clues, prompts: Mapping[str, str], default_prompt: str | None = None
) -> Instructions:
    """Return the instructions of a model.

    A kind of text without its own prompt gets the default one where the folder names one:
    sentence-transformers' encode() puts it before every text.
    """
    recognition = recognise(clues)
    default = default_prompt if default_prompt in prompts else None
    query, document = (_named(prompts, names) or default for names in (QUERY_NAMES, DOCUMENT_NAMES))
    if query is None and document is None:
        return _without_prompts(clues, recognition)
    return Instructions(
        prompts[query] if query is not None else "",
        prompts[document] if document is not None else "",
        Message(
            "the folder's prompts {names}",
            names=tuple(dict.fromkeys(name for name in (query, document) if name is not None)),
        ),
        _emptied(prompts, query, document, recognition),
    )


def pooled_as_published(settings: SentenceSettings, clues: Clues) -> SentenceSettings:
    """Return the settings with the instruction left out of the pooling, where the model is known for that.

    The folders of instructor do not say it. sentence-transformers knows these models by their names. A folder that
    says something itself is believed, as sentence-transformers does, and gets a note.
    """
    recognition = recognise(clues)
    if recognition is None or recognition.preset.include_prompt:
        return settings
    if settings.pooling not in OF_ALL_TOKENS or not settings.include_prompt:
        return settings
    if not settings.states_prompt:
        return replace(settings, include_prompt=False)
    doubt = Message(
        "{preset} is known for pooling that leaves the instruction out, but the folder says include_prompt: "
        "true, as sentence-transformers writes it by default; if the model was trained without it, write false "
        "in the config.json of its Pooling",
        preset=recognition.preset.name,
    )
    return replace(settings, doubts=(doubt,))


def _named(prompts: Mapping[str, str], names: Sequence[str]) -> str | None:
    """Return the name of the first prompt that has one of the names."""
    plain = {
        re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name
        for name in reversed(list(prompts))
    }
    return next((plain[name] for name in names if name in plain), None)


def _without_prompts(clues: Clues, recognition: Recognition | None) -> Instructions:
    if recognition is not None:
        preset = recognition.preset
        source = Message(
            "{source}; recognised as {preset} by {evidence}",
            source=preset.stated,
            preset=preset.name,
            evidence=recognition.evidence,
        )
        return Instructions(preset.query, preset.document, source)
    namesake, warning = by_name(clues.model_id), None
    if namesake is not None and namesake.query:
        warning = Message(
            "the name {model_id} is that of {preset}, but the network has other sizes, so no instruction is "
            "set; if it was trained with one, give it: --query-instruction {query!r}",
            model_id=clues.model_id,
            preset=namesake.name,
            query=namesake.query,
        )
    return Instructions("", "", Message("none known"), warning)


def _emptied(
    prompts: Mapping[str, str],
    query: str | None,
    document: str | None,
    recognition: Recognition | None,
) -> Message | None:
    """Return a warning where a folder says nothing before texts of a model known for instructions."""
    said = [prompts[name] for name in (query, document) if name is not None]
    if recognition is None or not recognition.preset.query or any(said):
        return None
    return Message(
        "{preset} is known for an instruction before queries, but the folder's prompts are empty, as "
        "sentence-transformers writes them by default; if the model was trained with one, give it: "
        "--query-instruction {query!r}",
        preset=recognition.preset.name,
        query=recognition.preset.query,
    )
