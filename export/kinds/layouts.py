"""Judges folders by their files: adapters, other formats of weights, and layouts that are no longer read."""

import re

from export.kinds.commands import merge_command, tokenizer_command
from export.kinds.kind import Kind
from export.kinds.sighting import ADAPTER, Sighting
from export.source.modules import in_folder
from server.messages.message import Message

# Files of tokenizers that only slow classes of transformers read.
SLOW_TOKENIZERS = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json")
# Classes that ran before sentence-transformers had Transformer, whose files are the same.
OLD_TRANSFORMERS = ("BERT", "RoBERTa", "DistilBERT", "ALBERT", "XLNet", "CamemBERT", "XLMRoBERTa")


def artifact(seen: Sighting) -> Kind | None:
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


def adapter(seen: Sighting) -> Kind | None:
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


def gguf(seen: Sighting) -> Kind | None:
    files = sorted(name for name in seen.names if name.lower().endswith(".gguf"))
    if not files or seen.has_weights:
        return None
    return Kind(
        Message("GGUF file"),
        refusal=Message(
            "{file} is a GGUF file, which is exported by its own path, not by that of its folder or by a hub "
            "id: download it, and run python -m export PATH/{file}",
            file=files[0],
        ),
    )


def old_modules(seen: Sighting) -> Kind | None:
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


def without_config(seen: Sighting) -> Kind | None:
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


def other_weights(seen: Sighting) -> Kind | None:
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
    found = next(
        (name for name in formats if in_folder(seen.transformer, name) in seen.names), None
    )
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


def slow_tokenizer(seen: Sighting) -> Kind | None:
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
            command=tokenizer_command(str(seen.place)),
        ),
    )
