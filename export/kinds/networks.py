"""Judges networks by config.json and modules.json: what they give for a text, if not a dense vector."""

import re

from export.kinds.commands import save_command
from export.kinds.kind import Kind
from export.kinds.sighting import Sighting
from export.source.json_file import Json
from export.source.modules import LOGIT_SCORE, SPLADE, STATIC
from server.messages.message import Message

# Words of a class in `architectures` after which the output is no embedding.
HEAD = re.compile(r"(?:For[A-Z]\w*|LMHeadModel|WithLMHead\w*)$")
WORD_TABLES = ("WordEmbeddings", "BoW", "WordWeights", "LSTM", "CNN")
IMAGE_TYPES = ("clip", "chinese_clip", "siglip", "siglip2", "altclip", "blip", "blip-2", "align")
MOST_LABELS_SHOWN = 5
# Modules of models whose queries and documents are read in different ways.
QUERY_PARTS = ("Router", "Asym")
CLASSIFIER, CAUSAL = "ForSequenceClassification", "ForCausalLM"
# Most rerankers among these read a pair in a prompt, which their folders do not say.
DECODERS = ("qwen2", "qwen3", "mistral", "llama")
WITHOUT_PROMPT = Message(
    "pairs of texts are read without a prompt, as CrossEncoder of sentence-transformers reads them; if the "
    "model was made from Qwen3-Reranker, export it with --pair-prompt qwen3"
)


def is_static(seen: Sighting) -> bool:
    """Return whether a model is a table of one vector a token: model2vec, or a StaticEmbedding."""
    # Beside a Transformer it is a module that the list of supported ones names.
    listed = STATIC in seen.classes and "Transformer" not in seen.classes
    return seen.model_type == "model2vec" or "StaticModel" in seen.architectures or listed


def static(seen: Sighting) -> Kind | None:
    if not is_static(seen):
        return None
    return Kind(Message("static embeddings, a vector for each token, averaged"), task="dense")


def word_table(seen: Sighting) -> Kind | None:
    found = set() if "Transformer" in seen.classes else seen.classes.intersection(WORD_TABLES)
    if not found:
        return None
    return Kind(
        Message("static embeddings"),
        refusal=Message(
            "{place} has word vectors ({what}), whose words are split by code of sentence-transformers' own; "
            "choose a model with a tokenizer.json, such as those of model2vec",
            place=seen.place,
            what=tuple(sorted(found)),
        ),
    )


def images(seen: Sighting) -> Kind | None:
    config = seen.config or {}
    named = [name for name in seen.architectures if re.search("CLIP|Siglip", name)]
    if not (
        seen.model_type in IMAGE_TYPES
        or named
        or "CLIPModel" in seen.classes
        or "vision_config" in config
    ):
        return None
    return Kind(
        Message("model of images and texts"),
        refusal=Message(
            "{place} is a model of images and texts (CLIP and its relatives); only models of texts are "
            "exported",
            place=seen.place,
        ),
    )


def late_interaction(seen: Sighting) -> Kind | None:
    named = any("colbert" in name.lower() for name in seen.architectures)
    pylate = any(name.startswith("pylate.") for name in seen.modules or ())
    if not (named or pylate or "artifact.metadata" in seen.here):
        return None
    return Kind(
        Message("ColBERT model"),
        refusal=Message(
            "{place} is a ColBERT model: it gives a vector for each token, compared by late interaction, and "
            "averaging them gives poor vectors; choose an embedding model",
            place=seen.place,
        ),
    )


def two_ways(seen: Sighting) -> Kind | None:
    if not seen.classes.intersection(QUERY_PARTS):
        return None
    return Kind(
        Message("model that reads queries and documents in two ways"),
        refusal=Message(
            "{place} reads queries by other modules than documents ({found}), as sparse models do whose queries "
            "need no network (inference-free); only models that read both in one way are exported",
            place=seen.place,
            found=tuple(sorted(seen.classes.intersection(QUERY_PARTS))),
        ),
    )


def sparse(seen: Sighting) -> Kind | None:
    sparse = any(".sparse_encoder." in name for name in seen.modules or ())
    if not sparse and not seen.classes.intersection(SPLADE):
        return None
    name = Message("SPLADE model, which gives a weight for each word of the vocabulary")
    if tuple(each.rpartition(".")[2] for each in seen.modules or ()) == SPLADE:
        return Kind(name, task="sparse")
    return Kind(
        name,
        refusal=Message(
            "{place} is a model of sparse weights with the modules {found}; only {written} are exported",
            place=seen.place,
            found=tuple(sorted(seen.classes)),
            written=SPLADE,
        ),
    )


def may_read_prompts(seen: Sighting) -> bool:
    """Return whether a model may read pairs in a prompt, by its network: which prompt, its card may show."""
    converted = seen.model_type in DECODERS and seen.ends_in(CLASSIFIER)
    return converted or seen.ends_in(CAUSAL)


def answering(seen: Sighting) -> Kind | None:
    """Judge a language model whose answer to a prompt is the score of a pair."""
    listed = LOGIT_SCORE in seen.classes
    bare = seen.modules is None and seen.ends_in(CAUSAL)
    if not (listed or (bare and seen.pair_prompt is not None)):
        return None
    name = Message("reranker that answers a prompt, and so scores pairs of texts")
    if seen.pair_prompt is not None:
        return Kind(name, task="score")
    return Kind(
        name,
        refusal=Message(
            "{place} scores pairs of texts by its answer to a prompt, which it keeps as code that is never "
            "run; if it is that of Qwen3-Reranker, export it with --pair-prompt qwen3",
            place=seen.place,
        ),
    )


def head(seen: Sighting) -> Kind | None:
    """Judge a network with a head; beside a module for pooling sentence-transformers drops the head."""
    name = next((name for name in seen.architectures if HEAD.search(name)), None)
    if name is None:
        return None
    if seen.modules is not None:
        # Newer versions of CrossEncoder list the network as their only module.
        alone = len(seen.modules) == 1 and seen.classes == {"Transformer"}
        return _classifier(seen, name) if alone and name.endswith(CLASSIFIER) else None
    if name.endswith(CLASSIFIER):
        return _classifier(seen, name)
    if name.endswith("ForMaskedLM"):
        return Kind(
            Message("masked language model"),
            on_request=("sparse",),
            refusal=Message(
                "{place} is a masked language model ({name}) without modules.json: a network before its "
                "training for embeddings, or a SPLADE model; add --task sparse for SPLADE; choose an embedding "
                "model, or, if this is one, save it with sentence-transformers: {command}",
                place=seen.place,
                name=name,
                command=save_command(str(seen.place)),
            ),
        )
    if name.endswith((CAUSAL, "LMHeadModel")):
        return Kind(
            Message("language model"),
            refusal=Message(
                "{place} is a language model that writes text ({name}) without modules.json, as chat models "
                "are; choose an embedding model, such as Qwen3-Embedding, or a reranker; if it was made from "
                "Qwen3-Reranker, and answers its prompt by yes or no, export it with --pair-prompt qwen3",
                place=seen.place,
                name=name,
            ),
        )
    return Kind(
        Message("model with a head for another task"),
        refusal=Message(
            "{place} is a {name}, whose training was for another task than embeddings; choose an embedding "
            "model, or, if this is one, save it with sentence-transformers: {command}",
            place=seen.place,
            name=name,
            command=save_command(str(seen.place)),
        ),
    )


def _classifier(seen: Sighting, name: str) -> Kind:
    labels = _labels(seen.config or {})
    if labels == 1:
        notes = (WITHOUT_PROMPT,) if seen.model_type in DECODERS and not seen.pair_prompt else ()
        return Kind(
            Message("cross-encoder, which scores pairs of texts"), task="score", notes=notes
        )
    listed = (seen.config or {}).get("id2label")
    names = [str(each)[:40] for each in listed.values()] if isinstance(listed, dict) else []
    return Kind(
        Message("classifier"),
        refusal=Message(
            "{place} is a classifier ({name}) with {n_labels} labels ({labels}): it is neither an embedding "
            "model nor a reranker, which has one label; choose one of those",
            place=seen.place,
            name=name,
            n_labels=labels,
            labels=(*names[:MOST_LABELS_SHOWN], *(["..."] if names[MOST_LABELS_SHOWN:] else []))
            or Message("without names"),
        ),
    )


def _labels(config: Json) -> int:
    """Return the number of labels as transformers counts them."""
    listed, number = config.get("id2label"), config.get("num_labels")
    if isinstance(listed, dict) and listed:
        return len(listed)
    return number if isinstance(number, int) and not isinstance(number, bool) else 2
