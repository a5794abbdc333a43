"""Tells what a model is from its settings and the names of its files, before anything is read or converted.

A `Kind` names the model for people, says what it would give, and, where that cannot be exported, the cause
and the way out. Nothing is opened here: folders, downloads and `inspect` collect a `Sighting` first.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from export.errors import UnsupportedModel
from export.source.json_file import Json
from server.messages.message import Message
from server.types import Task

# Where it is there, transformers loads the model that it names, and adds its weights.
ADAPTER = "adapter_config.json"
# Names of weights that transformers or sentence-transformers would load of a Transformer's folder.
WHOLE_WEIGHTS = re.compile(r"(?:model|pytorch_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)")
# Words of a class in `architectures` after which the output is no embedding.
HEAD = re.compile(r"(?:For[A-Z]\w*|LMHeadModel|WithLMHead\w*)$")
# Tokenizers that only slow classes of transformers read.
SLOW_TOKENIZERS = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json")
# Classes that ran before sentence-transformers had Transformer, and what it does now.
OLD_TRANSFORMERS = ("BERT", "RoBERTa", "DistilBERT", "ALBERT", "XLNet", "CamemBERT", "XLMRoBERTa")
WORD_TABLES = ("StaticEmbedding", "WordEmbeddings", "BoW", "WordWeights", "LSTM", "CNN")
IMAGE_TYPES = ("clip", "chinese_clip", "siglip", "siglip2", "altclip", "blip", "blip-2", "align")
MOST_LABELS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Sighting:
    """What can be seen of a model without its weights.

    place: the folder, or the id on a hub. config: config.json of the Transformer's folder, None where there
    is none. modules: the classes in modules.json, None where there is none. names: of all files, relative
    to the model's folder. transformer: the folder of the network, empty for the model's own. base: the
    model that an adapter belongs to.
    """

    place: Path | str
    config: Json | None
    modules: tuple[str, ...] | None
    names: Collection[str]
    transformer: str = ""
    base: str | None = None

    @property
    def here(self) -> set[str]:
        """The names of the files in the Transformer's folder."""
        folder = PurePosixPath(self.transformer)
        return {path.name for path in map(PurePosixPath, self.names) if path.parent == folder}

    @property
    def classes(self) -> set[str]:
        """The last parts of the names of the modules' classes."""
        return {name.rpartition(".")[2] for name in self.modules or ()}

    @property
    def architectures(self) -> list[str]:
        listed = (self.config or {}).get("architectures")
        return (
            [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        )

    @property
    def model_type(self) -> str:
        return str((self.config or {}).get("model_type") or "")

    @property
    def has_weights(self) -> bool:
        return any(map(WHOLE_WEIGHTS.fullmatch, self.here))


@dataclass(frozen=True, slots=True)
class Kind:
    """What a model is.

    name: for people. task: what it would give, None where that is nothing that can be served. refusal: why it
    cannot be exported, and what to do. notes: what an export leaves out.
    """

    name: Message
    task: Task | None = None
    refusal: Message | None = None
    notes: tuple[Message, ...] = field(default=())


def kind_of(sighting: Sighting) -> Kind:
    """Return what a model is; every model has a kind."""
    found = next((kind for rule in RULES if (kind := rule(sighting)) is not None), None)
    return found or _embedder(sighting)


def check_kind(sighting: Sighting) -> Kind:
    """Return what a model is; raises UnsupportedModel for what cannot be exported."""
    kind = kind_of(sighting)
    if kind.refusal is not None:
        raise UnsupportedModel(kind.refusal)
    return kind


# --- folders without a network of their own -------------------------------------------------------


def _artifact(seen: Sighting) -> Kind | None:
    if seen.config is not None or not {"manifest.json", "model.onnx"} <= seen.here:
        return None
    return Kind(
        Message("exported artifact"),
        refusal=Message(
            "{place} is an artifact that has been exported already; serve it with python -m server "
            "--model {place}, or export the checkpoint that it was made from",
            place=seen.place,
        ),
    )


def _adapter(seen: Sighting) -> Kind | None:
    weights = {name for name in seen.here if name.startswith("adapter_model.")}
    if ADAPTER not in seen.here and not weights:
        return None
    name = Message("LoRA adapter")
    base = seen.base or "BASE"
    if seen.has_weights:
        return Kind(
            name,
            refusal=Message(
                "{place} holds the weights of an adapter beside those of a model ({files}), and an export "
                "cannot know whether they are merged; merge them and export the result, or remove the "
                "adapter's files if they are merged already: {command}",
                place=seen.place,
                files=tuple(sorted(weights | ({ADAPTER} & seen.here))),
                command=merge_command(base, str(seen.place)),
            ),
        )
    return Kind(
        name,
        refusal=Message(
            "{place} is a LoRA adapter of {base}, not a whole model; merge it into that model and export "
            "the result: {command}",
            place=seen.place,
            base=base,
            command=merge_command(base, str(seen.place)),
        ),
    )


def merge_command(base: str, adapter: str) -> str:
    """Return a command that merges an adapter; it needs sentence-transformers and peft."""
    return (
        'python -c "from sentence_transformers import SentenceTransformer; from peft import PeftModel;'
        f" m = SentenceTransformer({_quoted(base)});"
        f" m[0].auto_model = PeftModel.from_pretrained(m[0].auto_model, {_quoted(adapter)})"
        ".merge_and_unload(); m.save('merged')\""
    )


def _quoted(text: str) -> str:
    """Return a Python string inside a command in double quotes, or a place holder for odd names."""
    return f"'{text}'" if re.fullmatch(r"[\w./~:@ -]+", text) else "'...'"


def _gguf(seen: Sighting) -> Kind | None:
    files = sorted(name for name in seen.names if name.lower().endswith(".gguf"))
    if not files or seen.has_weights:
        return None
    return Kind(
        Message("GGUF file"),
        refusal=Message(
            "{file} is a GGUF file, made for llama.cpp, and is not read; export the model that it was made "
            "from, a folder with config.json and model.safetensors",
            file=files[0],
        ),
    )


def gguf_file(path: Path) -> UnsupportedModel:
    """Return the refusal of a path to a single GGUF file."""
    kind = kind_of(Sighting(path, None, None, {path.name}))
    return UnsupportedModel(kind.refusal or kind.name)


def _static(seen: Sighting) -> Kind | None:
    found = seen.classes.intersection(WORD_TABLES)
    if seen.model_type != "model2vec" and "StaticModel" not in seen.architectures and not found:
        return None
    return Kind(
        Message("static embeddings"),
        refusal=Message(
            "{place} has static embeddings ({what}): a table of one vector a word, without a network; only "
            "networks are exported: choose the model that it was distilled from",
            place=seen.place,
            what=tuple(sorted(found)) or "model2vec",
        ),
    )


# --- networks that give something else ------------------------------------------------------------


def _images(seen: Sighting) -> Kind | None:
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


def _late_interaction(seen: Sighting) -> Kind | None:
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


def _sparse(seen: Sighting) -> Kind | None:
    sparse = any(".sparse_encoder." in name for name in seen.modules or ())
    if not sparse and not seen.classes & {"SpladePooling", "MLMTransformer"}:
        return None
    return Kind(
        Message("SPLADE model"),
        refusal=Message(
            "{place} is a SPLADE model: it gives a weight for each word of the vocabulary, not a dense "
            "vector; choose an embedding model",
            place=seen.place,
        ),
    )


def _head(seen: Sighting) -> Kind | None:
    """Judge a network with a head; in a folder with modules.json sentence-transformers drops the head."""
    if seen.modules is not None:
        return None
    name = next((name for name in seen.architectures if HEAD.search(name)), None)
    if name is None:
        return None
    if name.endswith("ForSequenceClassification"):
        return _classifier(seen, name)
    if name.endswith("ForMaskedLM"):
        return Kind(
            Message("masked language model"),
            refusal=Message(
                "{place} is a masked language model ({name}) without modules.json: a network before its "
                "training for embeddings, or a SPLADE model; choose an embedding model, or, if this is one, "
                "save it with sentence-transformers: {command}",
                place=seen.place,
                name=name,
                command=save_command(str(seen.place)),
            ),
        )
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return Kind(
            Message("language model"),
            refusal=Message(
                "{place} is a language model that writes text ({name}) without modules.json, as chat models "
                "and rerankers that answer yes or no are (Qwen3-Reranker); choose an embedding model, such "
                "as Qwen3-Embedding, or a cross-encoder",
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


def save_command(place: str) -> str:
    """Return a command that writes a folder in sentence-transformers' layout, with mean pooling."""
    return (
        'python -c "from sentence_transformers import SentenceTransformer;'
        f" SentenceTransformer({_quoted(place)}).save('saved')\""
    )


def _classifier(seen: Sighting, name: str) -> Kind:
    labels = _labels(seen.config or {})
    if labels == 1:
        return Kind(Message("cross-encoder, which scores pairs of texts"), task="score")
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


# --- layouts that are not read --------------------------------------------------------------------


def _old_modules(seen: Sighting) -> Kind | None:
    old = seen.classes.intersection(OLD_TRANSFORMERS)
    if not old:
        return None
    return Kind(
        Message("old layout"),
        refusal=Message(
            "modules.json of {place} names {name}, a class of sentence-transformers before 2020; write "
            "sentence_transformers.models.Transformer in its place: the files are the same",
            place=seen.place,
            name=min(old),
        ),
    )


def _without_config(seen: Sighting) -> Kind | None:
    if seen.config is not None:
        return None
    if "bert_config.json" in seen.here or any(".ckpt." in name for name in seen.here):
        return Kind(
            Message("old layout"),
            refusal=Message(
                "{place} is a checkpoint of TensorFlow 1; convert it with transformers "
                "(convert_bert_original_tf_checkpoint_to_pytorch) and export the result",
                place=seen.place,
            ),
        )
    inner = sorted(
        {name.split("/")[0] for name in seen.names if re.fullmatch(r"0_\w+/config\.json", name)}
    )
    if inner and seen.modules is None:
        return Kind(
            Message("old layout"),
            refusal=Message(
                "{place} has the network in {inner} but no modules.json, which says how it is pooled; copy "
                "that file from where the model came from",
                place=seen.place,
                inner=inner[0],
            ),
        )
    return None


def _without_type(seen: Sighting) -> Kind | None:
    if not seen.config or seen.config.get("model_type") is not None:
        return None
    return Kind(
        Message("old layout"),
        refusal=Message(
            "config.json of {place} has no model_type, as files before 2020; if the model is a BERT, add "
            '"model_type": "bert"',
            place=seen.place,
        ),
    )


def _other_weights(seen: Sighting) -> Kind | None:
    if seen.has_weights or any(name.endswith(".index.json") for name in seen.here):
        return None
    formats = {
        "tf_model.h5": "TensorFlow",
        "flax_model.msgpack": "Flax",
        "rust_model.ot": "rust-bert",
        "consolidated.safetensors": "Mistral",
        "model.onnx": "ONNX",
        "onnx/model.onnx": "ONNX",
        "openvino/openvino_model.xml": "OpenVINO",
    }
    found = next((name for name in formats if name in {*seen.here, *seen.names}), None)
    if found is None:
        return None
    return Kind(
        Message("weights in another format"),
        refusal=Message(
            "{place} has its weights only as {file} ({format}); an export reads model.safetensors: take a "
            "revision of the model that has it, or save the model with transformers",
            place=seen.place,
            file=found,
            format=formats[found],
        ),
    )


def _slow_tokenizer(seen: Sighting) -> Kind | None:
    if seen.config is None or seen.here & {"tokenizer.json", "vocab.txt"}:
        return None
    found = next((name for name in SLOW_TOKENIZERS if name in seen.here), None)
    if found is None:
        return None
    return Kind(
        Message("model with a slow tokenizer only"),
        refusal=Message(
            "{place} has {file} but no tokenizer.json, the form that is read; write it with transformers and "
            "sentencepiece: {command}",
            place=seen.place,
            file=found,
            command=(
                'python -c "from transformers import AutoTokenizer;'
                f" AutoTokenizer.from_pretrained({_quoted(str(seen.place))})"
                ".save_pretrained('tokenizer')\""
            ),
        ),
    )


# --- embedding models -----------------------------------------------------------------------------


def _embedder(seen: Sighting) -> Kind:
    return Kind(
        Message("embedding model, which gives a dense vector for a text"),
        task="dense",
        notes=tuple(_left_out(seen)),
    )


def _left_out(seen: Sighting) -> Iterator[Message]:
    heads = sorted(seen.here & {"sparse_linear.pt", "colbert_linear.pt"})
    if heads:
        yield Message(
            "{files}: only the dense vectors are exported, not the sparse weights and token vectors",
            files=tuple(heads),
        )
    adapters = sorted(
        name for name in seen.names if PurePosixPath(name).name == ADAPTER and "/" in name
    )
    if adapters:
        yield Message(
            "{files}: an adapter in a folder of its own is not applied; merge it first if the model needs it",
            files=tuple(adapters[:3]),
        )


Rule = Callable[[Sighting], Kind | None]
# The first that knows the model decides.
RULES: tuple[Rule, ...] = (
    _artifact,
    _adapter,
    _gguf,
    _static,
    _images,
    _late_interaction,
    _sparse,
    _old_modules,
    _without_config,
    _head,
    _without_type,
    _other_weights,
    _slow_tokenizer,
)
