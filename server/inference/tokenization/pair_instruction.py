"""Reads the instruction that a request puts into the prompt of its pairs."""

from server.errors import InvalidRequest
from server.inference.tokenization.pairs import Template
from server.inference.tokenizer import Tokenizer

# Characters of an instruction. It is tokenised on the event loop: 1 ms.
MAX_INSTRUCTION = 2_048


def template_of(instruction: str, tokenizer: Tokenizer, model_id: str) -> Template | None:
    """Return the template of pairs with this instruction; None for an empty one, which means the model's own.

    Raises InvalidRequest where the model has no place for it, and where it leaves little of a pair.
    """
    if not instruction:
        return None
    if tokenizer.rules.pair_prompt is None:
        raise _wrong(f"{model_id} reads pairs without a prompt, so it takes no instruction")
    if len(instruction) > MAX_INSTRUCTION:
        raise _wrong(
            f"the instruction has {len(instruction)} characters, at most {MAX_INSTRUCTION} are allowed"
        )
    try:
        template = tokenizer.template_with(instruction)
    except UnicodeEncodeError as error:
        raise _wrong(
            f"the instruction is not valid Unicode, and UTF-8 cannot hold it: {error.reason}"
        ) from None
    tokens, most = template.special, tokenizer.rules.max_tokens
    if 2 * tokens > most:
        raise _wrong(
            f"with this instruction the prompt takes {tokens} of the {most} tokens that {model_id} reads, at"
            " most half is allowed; shorten it"
        )
    return template


def _wrong(said: str) -> InvalidRequest:
    return InvalidRequest(said, param="instruction")
