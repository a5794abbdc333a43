"""What transformers changes in a stored tokenizer, by its class and the settings beside it.

What can be done the same way is done; what cannot is refused.
"""

import re
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from export.errors import UnsupportedModel
from export.source.json_file import Json, boolean, shown

CONFIG = "tokenizer_config.json"
# The class of a model whose settings name none, by the model's type; others have BERT's.
DEFAULTS = {
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "electra": "ElectraTokenizer",
    "modernbert": "PreTrainedTokenizer",
    "t5": "T5Tokenizer",
}
# Classes besides those with Bert in their name that set the options of BERT's normaliser.
NORMALIZING = frozenset(
    (
        "DPRQuestionEncoder DPRContextEncoder DPRReader Electra Funnel LayoutLM LayoutLMv2 Lxmert MPNet"
    ).split()
    + ["Realm", "Splinter"]
)
# Classes that put other special tokens around a text, whatever tokenizer.json says (for Llama's see
# `tokenizer_file`): the defaults of
# add_bos_token; add_eos_token is false.
TEMPLATES = {
    "CodeLlama": True,
    "Gemma": True,
    "Cohere": True,
    "GPTNeoX": False,
}
# The code of gte-Qwen2-*-instruct: the tokens of Qwen2, and what `adds_end` says.
ENDING = ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]
REBUILDING = frozenset("MBart MBart50 Nllb SeamlessM4T Whisper RoFormer".split())
# Classes that give the network no token types, unless model_input_names says otherwise.
WITHOUT_TYPES = frozenset(
    (
        "Bart Barthez BigBird Blenderbot Bloom CLIP Camembert CodeGen CodeLlama Cohere DistilBert GPT2 "
        "GPTNeoX Gemma LED LayoutLMv3 LayoutXLM Llama Longformer MBart MBart50 MPNet MT5 Mvp Nllb "
        "OpenAIGPT Pegasus Qwen2 Reformer RetriBert Roberta SeamlessM4T T5 Udop Whisper XGLM XLMRoberta"
    ).split()
)
SPECIAL = tuple(f"{name}_token" for name in "bos eos unk sep pad cls mask".split())
SURROGATE = re.compile("[\ud800-\udfff]")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def class_of(settings: Json, config: Json) -> str:
    """Return the name of the tokenizer's class without its endings, such as Bert."""
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    named = named or DEFAULTS.get(str(config.get("model_type")), "BertTokenizer")
    return str(named).removesuffix("Fast").removesuffix("Tokenizer")


def sets_normalizer(name: str) -> bool:
    return "Bert" in name or name in NORMALIZING


def gives_types(name: str, settings: Json) -> bool:
    """Return whether transformers gives the network the token types that the tokenizer says."""
    names = settings.get("model_input_names")
    if isinstance(names, list):
        return "token_type_ids" in names
    return name not in WITHOUT_TYPES


def adds_end(settings: Json) -> bool:
    """Return whether the settings name code that is known to put eos_token behind a text, and that alone."""
    own = settings.get("auto_map")
    return (
        isinstance(own, dict)
        and own.get("AutoTokenizer") == ENDING
        and settings.get("add_eos_token") is True
        and not settings.get("add_bos_token")
    )


def apply_settings(tokenizer: Tokenizer, name: str, settings: Json, special: Json) -> None:
    """Change the tokenizer as transformers would; raises UnsupportedModel for what cannot be done.

    special: special_tokens_map.json, which counts where tokenizer_config.json lists no added tokens.
    """
    if settings.get("split_special_tokens"):
        raise UnsupportedModel(
            "{config}: split_special_tokens changes how special tokens in texts are read, and is not "
            "supported; save the model without it",
            config=CONFIG,
        )
    named = isinstance(settings.get("auto_map"), dict) and settings["auto_map"].get("AutoTokenizer")
    if named and not adds_end(settings):
        raise UnsupportedModel(
            "{config} asks for a tokenizer with code of the model's own ({code} in auto_map), which is never "
            "run and may give other tokens; choose a model without it",
            config=CONFIG,
            code=shown(named),
        )
    _add_listed(tokenizer, settings)
    _add_special(
        tokenizer, settings if "added_tokens_decoder" in settings else {**settings, **special}
    )
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        split = tokenizer.pre_tokenizer
        split.add_prefix_space = boolean(CONFIG, settings, "add_prefix_space", False)
        tokenizer.pre_tokenizer = split
    if sets_normalizer(name):
        _set_normalizer(tokenizer, settings)
    _check_template(tokenizer, name, settings)


def _add_listed(tokenizer: Tokenizer, settings: Json) -> None:
    """Give added tokens the flags that tokenizer_config.json lists for them."""
    listed = settings.get("added_tokens_decoder")
    own = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    for entry in listed.values() if isinstance(listed, dict) else ():
        if not isinstance(entry, dict) or entry.get("content") not in own:
            continue
        stored = own[entry["content"]]
        flags = {flag: boolean(CONFIG, entry, flag, bool(getattr(stored, flag))) for flag in FLAGS}
        if any(flags[flag] != getattr(stored, flag) for flag in FLAGS):
            tokenizer.add_tokens([AddedToken(stored.content, **flags)])


def _add_special(tokenizer: Tokenizer, settings: Json) -> None:
    """Add special tokens that are words of the vocabulary: texts with them are read in another way."""
    own = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for content in dict.fromkeys(_special(settings)):
        if content not in own and tokenizer.token_to_id(content) is not None:
            tokenizer.add_tokens([AddedToken(content, special=True, normalized=False)])


def content_of(token: Any) -> Any:
    """Return the text of a token, which settings give by itself or in an object."""
    return token.get("content") if isinstance(token, dict) else token


def _special(settings: Json) -> Iterator[str]:
    more, extra = settings.get("additional_special_tokens"), settings.get("extra_special_tokens")
    listed: list[Any] = [settings.get(name) for name in SPECIAL]
    listed += more if isinstance(more, list) else []
    listed += extra.values() if isinstance(extra, dict) else []
    for content in map(content_of, listed):
        # Half of a surrogate pair is in no vocabulary, and the library cannot look for it.
        if isinstance(content, str) and content and not SURROGATE.search(content):
            yield content


def _set_normalizer(tokenizer: Tokenizer, settings: Json) -> None:
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return
    normalizer.lowercase = boolean(CONFIG, settings, "do_lower_case", default=True)
    normalizer.handle_chinese_chars = boolean(
        CONFIG, settings, "tokenize_chinese_chars", default=True
    )
    # Null means: as lower case does.
    follows = settings.get("strip_accents") is None
    normalizer.strip_accents = None if follows else boolean(CONFIG, settings, "strip_accents", True)
    tokenizer.normalizer = normalizer


def _check_template(tokenizer: Tokenizer, name: str, settings: Json) -> None:
    """Refuse a class that puts other special tokens around a text than tokenizer.json does."""
    same = name not in REBUILDING
    if name in TEMPLATES:
        begins = boolean(CONFIG, settings, "add_bos_token", TEMPLATES[name])
        ends = boolean(CONFIG, settings, "add_eos_token", False)
        bos, eos = ([*_special({key: settings.get(key)})] for key in ("bos_token", "eos_token"))
        found = tokenizer.encode("").tokens
        # Classes have names of their own for tokens that the settings do not name.
        same = len(found) == begins + ends
        same = same and (not begins or not bos or found[0] == bos[0])
        same = same and (not ends or not eos or found[-1] == eos[0])
    if not same:
        raise UnsupportedModel(
            "{config}: a tokenizer of the class {name} puts other special tokens around a text than "
            "tokenizer.json does; save it as a PreTrainedTokenizerFast",
            config=CONFIG,
            name=name[:80],
        )
