"""Checks the instruction that a request puts into the prompt of its pairs."""

from server.errors import InvalidRequest
from server.inference.tokenizer import Tokenizer

# Characters of an instruction. It is tokenised on the event loop: 1 ms.
MAX_INSTRUCTION = 2_048


def check_instruction(instruction: str, tokenizer: Tokenizer, model_id: str) -> None:
    """Refuse an instruction that the model has no place for, or that leaves little of a pair.

    An empty one means that of the model. Raises InvalidRequest.
    """
    if not instruction:
        return
    if tokenizer.rules.pair_prompt is None:
        raise _wrong(f"{model_id} reads pairs without a prompt, so it takes no instruction")
    if len(instruction) > MAX_INSTRUCTION:
        raise _wrong(
            f"the instruction has {len(instruction)} characters, at most {MAX_INSTRUCTION} are allowed"
        )
    try:
        tokens = tokenizer.around_pairs(instruction)
    except UnicodeEncodeError as error:
        raise _wrong(
            f"the instruction is not valid Unicode, and UTF-8 cannot hold it: {error.reason}"
        ) from None
    most = tokenizer.rules.max_tokens
    if 2 * tokens > most:
        raise _wrong(
            f"with this instruction the prompt takes {tokens} of the {most} tokens that {model_id} reads, at"
            " most half is allowed; shorten it"
        )


def _wrong(said: str) -> InvalidRequest:
    return InvalidRequest(said, param="instruction")
