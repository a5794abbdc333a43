"""Opens a model's tokenizer as the server will, and refuses instructions that leave no room for a text."""

from export.errors import CorruptFile, UnsupportedModel
from server.inference.manifest import TextRules
from server.inference.tokenizer import Tokenizer


def open_tokenizer(tokenizer_json: str, rules: TextRules) -> Tokenizer:
    """Return the tokenizer; raises an ExportError for one that the server could not use."""
    try:
        tokenizer = Tokenizer(tokenizer_json, rules)
        query, document = tokenizer.length("", "query"), tokenizer.length("", "document")
        prompt = 0 if rules.pair_prompt is None else tokenizer.around_pairs()
    except Exception as error:
        # The Rust library raises bare Exception.
        raise CorruptFile(
            "the server cannot use this tokenizer: {error}", error=str(error)[:500]
        ) from None
    if rules.query_instruction:
        _check_room("--query-instruction", query, rules.max_tokens)
    if rules.document_instruction:
        _check_room("--document-instruction", document, rules.max_tokens)
    if 2 * prompt > rules.max_tokens:
        raise UnsupportedModel(
            "the prompt around a pair of texts takes {n_tokens} of the {max_tokens} tokens that are read; at most "
            "half is allowed: give a shorter --query-instruction or a larger --max-tokens",
            n_tokens=prompt,
            max_tokens=rules.max_tokens,
        )
    return tokenizer


def _check_room(option: str, n_tokens: int, max_tokens: int) -> None:
    """Refuse an instruction by which texts would lose their end, or differ in nothing."""
    if 2 * n_tokens > max_tokens:
        raise UnsupportedModel(
            "the instruction takes {n_tokens} of the {max_tokens} tokens that the model reads, so that little "
            "or nothing of a text would be read; at most half is allowed: give a shorter one with {option}",
            n_tokens=n_tokens,
            max_tokens=max_tokens,
            option=option,
        )
