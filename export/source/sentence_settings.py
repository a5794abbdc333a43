"""Reads a folder's sentence-transformers files: pooling, length limit, prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.source.folder import ModelFolder
from export.source.json_file import Json, boolean, is_object_of_strings, shown, whole_number
from export.source.modules import MODULES, Modules
from export.source.tail import Normalize, Step, read_tail
from server.inference.manifest import Similarity, cosine_orders
from server.inference.results import UNPOOLED
from server.messages.message import Message

POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# What both routes can write; a family may write fewer.
POOLINGS = ("cls", "mean", "max")
OF_ALL_TOKENS = ("mean", "max")
# sentence-transformers reads the first of these that a Transformer's folder has.
SENTENCE_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
# What sentence-transformers hands on to transformers, which then loads another network or tokenizer.
HANDED_ON = ("config_args", "model_args", "tokenizer_args", "tokenizer_name_or_path")
PROMPTS = "config_sentence_transformers.json"


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """The settings of text and pooling in the sentence-transformers module files.

    tail: what happens to the pooled row before it is normalised, where `normalize` says so. similarity:
    how the vectors are meant to be compared.
    include_prompt: whether pooling reads the tokens of an instruction. states_prompt: the folder says so itself.
    doubts: notes on what the folder says, where the model is known for something else.
    strip, max_characters, dropped_token: as in the manifest's `TextRules`.
    """

    pooling: str
    normalize: bool
    max_tokens: int
    lower_case: bool
    prompts: Mapping[str, str]
    default_prompt: str | None
    tail: tuple[Step, ...] = ()
    similarity: Similarity = "cosine"
    include_prompt: bool = True
    states_prompt: bool = False
    doubts: tuple[Message, ...] = ()
    strip: bool = True
    max_characters: int | None = None
    dropped_token: int | None = None

    @property
    def notes(self) -> tuple[Message, ...]:
        """What a user should know of the vectors."""
        if cosine_orders(self.similarity, normalized=self.normalize):
            return self.doubts
        return (
            *self.doubts,
            Message(
                "similarity_fn_name is {similarity}: searches in collections compare by cosine and may rank "
                "worse; the vectors themselves are exact",
                similarity=self.similarity,
            ),
        )

    def instruction_offset(self, vocabulary: int) -> int:
        """Return what the ids of an instruction's tokens come with, see `TextRules` of the manifest."""
        return 0 if self.include_prompt else vocabulary


def read_settings(
    folder: ModelFolder,
    modules: Modules,
    positions: int,
    poolings: Sequence[str] = POOLINGS,
    *,
    unpooled: bool = False,
) -> SentenceSettings:
    """Return the folder's settings; raises an ExportError for what cannot be honoured exactly.

    positions: the longest text that the network can read, in tokens. poolings: what can be written. unpooled:
    every token's row is wanted, as it is.
    A folder without modules.json gets what sentence-transformers gives it: mean pooling, not
    normalised in the module list (cosine models normalise at use; the artifact says so), and its
    sentence_bert_config.json is ignored.
    """
    sentence_config = _sentence_config(folder, modules)
    tokenizer_config = folder.optional_json(modules.file("tokenizer_config.json"))
    prompts, default_prompt = read_prompts(folder)
    pooling_file = modules.pooling_file()
    pooling, include_prompt, states_prompt = "mean", True, False
    tail: tuple[Step, ...] = ()
    normalize = False
    if unpooled:
        pooling = UNPOOLED
    else:
        if pooling_file is not None:
            config = folder.json(pooling_file)
            pooling = _pooling_mode(pooling_file, config, poolings)
            include_prompt = boolean(pooling_file, config, "include_prompt", default=True)
            states_prompt = config.get("include_prompt") is not None
        tail, normalize = _split(read_tail(folder, modules))
    return SentenceSettings(
        pooling=pooling,
        normalize=normalize,
        max_tokens=max_tokens_of(sentence_config, tokenizer_config, positions),
        lower_case=boolean("sentence_bert_config.json", sentence_config, "do_lower_case", False),
        prompts=prompts,
        default_prompt=default_prompt,
        tail=tail,
        similarity="cosine" if unpooled else _similarity(folder),
        # Nothing else reads a token of the instruction.
        include_prompt=include_prompt or pooling not in OF_ALL_TOKENS,
        states_prompt=states_prompt,
    )


def _split(steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], bool]:
    """Return the steps before the last normalisation, and whether there is one at the end."""
    before = steps
    # Normalising twice gives the same as once.
    while before and isinstance(before[-1], Normalize):
        before = before[:-1]
    return before, before != steps


def limited(settings: SentenceSettings, max_tokens: int | None) -> SentenceSettings:
    """Return the settings with texts cut to `max_tokens`; None changes nothing. Raises ShapeMismatch."""
    if max_tokens is None:
        return settings
    if not 3 <= max_tokens <= settings.max_tokens:
        raise ShapeMismatch(
            "--max-tokens {asked} is outside 3 to {most}, the tokens that the model reads",
            asked=max_tokens,
            most=settings.max_tokens,
        )
    return replace(settings, max_tokens=max_tokens)


def _sentence_config(folder: ModelFolder, modules: Modules) -> Json:
    if folder.has(MODULES):
        for name in map(modules.file, SENTENCE_CONFIGS):
            if folder.has(name):
                settings = folder.json(name)
                _check_nothing_handed_on(name, settings)
                return settings
    return {}


def _check_nothing_handed_on(name: str, settings: Json) -> None:
    for key in HANDED_ON:
        if settings.get(key):
            raise UnsupportedModel(
                "{file}: {key} changes how the model is loaded, and cannot be honoured; save the model "
                "without it",
                file=name,
                key=key,
            )


def max_tokens_of(sentence_config: Json, tokenizer_config: Json, positions: int) -> int:
    """Return the tokens of the longest text that is read; positions: that the network can read."""
    model_max_length = whole_number(
        "tokenizer_config.json", tokenizer_config, "model_max_length", positions
    )
    max_tokens = whole_number(
        "sentence_bert_config.json",
        sentence_config,
        "max_seq_length",
        min(positions, model_max_length),
    )
    if not 3 <= max_tokens <= positions:
        raise ShapeMismatch(
            "max_seq_length {shown} is outside 3 to {positions} (max_position_embeddings)",
            shown=shown(max_tokens),
            positions=positions,
        )
    return max_tokens


def read_prompts(folder: ModelFolder) -> tuple[dict[str, str], str | None]:
    """Return the prompts by name, and the name of the one that is put before every text."""
    path, settings = folder.path(PROMPTS), folder.optional_json(PROMPTS)
    prompts, default = settings.get("prompts"), settings.get("default_prompt_name")
    if prompts is None:
        prompts = {}
    if not is_object_of_strings(prompts):
        raise CorruptFile(
            "{path}: prompts is {shown}, not an object of strings", path=path, shown=shown(prompts)
        )
    if default is not None and not isinstance(default, str):
        raise CorruptFile(
            "{path}: default_prompt_name is {shown}, not a string", path=path, shown=shown(default)
        )
    for name, prompt in prompts.items():
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise CorruptFile(
                "{path}: prompt {shown} holds half of a surrogate pair, which is no character",
                path=path,
                shown=shown(name),
            ) from None
    return prompts, default


def _similarity(folder: ModelFolder) -> Similarity:
    named = folder.optional_json(PROMPTS).get("similarity_fn_name")
    found = next((each for each in get_args(Similarity) if each == (named or "cosine")), None)
    if found is None:
        raise UnsupportedModel(
            "{file}: similarity_fn_name is {shown}, not one of {known}",
            file=PROMPTS,
            shown=shown(named),
            known=get_args(Similarity),
        )
    return cast(Similarity, found)


def _pooling_mode(file: str, config: Json, poolings: Sequence[str]) -> str:
    # subtle: for sentence-transformers a missing flag is false, but the one for mean is true.
    modes = [
        mode
        for flag, mode in POOLING_FLAGS.items()
        if boolean(file, config, flag, default=mode == "mean")
    ]
    if config.get("pooling_mode") is not None:
        modes = [str(config["pooling_mode"])[:40]]
    if len(modes) != 1 or modes[0] not in poolings:
        found = " + ".join(modes) or "none"
        raise UnsupportedModel(
            "pooling {found} is not supported; one of {supported} is needed",
            found=found,
            supported=tuple(poolings),
        )
    return modes[0]
