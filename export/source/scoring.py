"""Reads a cross-encoder's folder as the CrossEncoder of sentence-transformers does.

A cross-encoder reads two texts together and gives a score. config.json names the architecture, the number of
labels and the activation of the score; newer versions write the activation beside the prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from export.errors import CorruptFile, UnsupportedModel
from export.source.folder import ModelFolder
from export.source.json_file import Json, shown
from export.source.modules import Modules
from export.source.sentence_settings import SentenceSettings, max_tokens_of, read_prompts
from export.source.tokenizer_class import class_of, gives_types
from server.inference.manifest import Activation, PairPrompt

# The classes of torch that config.json names -> what the server calls them.
ACTIVATIONS: Mapping[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "identity"}


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a checkpoint says of its scores.

    second_text_offset: what the token ids of a pair's second text come with, see the manifest.
    pair_prompt: what a language model reads a pair in.
    """

    activation: Activation
    second_text_offset: int
    pair_prompt: PairPrompt | None = None


def read_activation(config: Json, saved: Json) -> Activation:
    """Return what makes a score of the network's number; raises an ExportError for another activation.

    saved: config_sentence_transformers.json, which wins over config.json.
    """
    # Versions before 4 of sentence-transformers had the last key.
    stored = config.get("sentence_transformers")
    named = saved.get("activation_fn") if saved.get("model_type") == "CrossEncoder" else None
    named = named or (stored.get("activation_fn") if isinstance(stored, dict) else None)
    named = named or config.get("sbert_ce_default_activation_function")
    if named is None:
        return "sigmoid"
    if not isinstance(named, str):
        raise CorruptFile(
            "config.json: the activation of scores is {shown}, not the name of a class",
            shown=shown(named),
        )
    activation = ACTIVATIONS.get(named.rpartition(".")[2])
    # sentence-transformers does not run a class from elsewhere, and takes its own default instead.
    if not named.startswith("torch."):
        return "sigmoid"
    if activation is None:
        raise UnsupportedModel(
            "config.json asks for the activation {shown} of scores; only {known} are supported",
            shown=shown(named),
            known=tuple(ACTIVATIONS),
        )
    return activation


def has_token_types(folder: ModelFolder, modules: Modules, config: Json) -> bool:
    """Return whether transformers gives the network the types that the tokenizer says."""
    settings = folder.optional_json(modules.file("tokenizer_config.json"))
    return gives_types(class_of(settings, config), settings)


def read_pair_settings(
    folder: ModelFolder, modules: Modules, positions: int, pooling: str
) -> SentenceSettings:
    """Return the settings of the texts.

    positions: the longest pair that the network can read. pooling: the row that its head reads.
    """
    tokenizer_config = folder.optional_json(modules.file("tokenizer_config.json"))
    prompts, default_prompt = read_prompts(folder)
    return SentenceSettings(
        pooling=pooling,
        normalize=False,
        max_tokens=max_tokens_of({}, tokenizer_config, positions),
        lower_case=False,
        prompts=prompts,
        default_prompt=default_prompt,
    )
