"""The prompts in which language models read pairs of texts, and the answers that they were trained to give.

Stated by the models' own code: Qwen3-Reranker in its README.md (format_instruction, process_inputs and
compute_logits), the same for the models converted from it (tomaarsen/Qwen3-Reranker-0.6B-seq-cls).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from export.known.presets import WEB_SEARCH
from server.inference.manifest import PairPrompt

# For a model that reads pairs without a prompt, whatever it was made from.
NO_PROMPT = "none"


@dataclass(frozen=True, slots=True)
class KnownPrompt:
    """A prompt, the words of the answers, and the tokens that the model's own code reads at most."""

    prompt: PairPrompt
    yes: str
    no: str
    max_tokens: int


PAIR_PROMPTS: Mapping[str, KnownPrompt] = {
    "qwen3": KnownPrompt(
        PairPrompt(
            before="<|im_start|>system\nJudge whether the Document meets the requirements based on the Query"
            ' and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
            "<|im_start|>user\n",
            instruction_label="<Instruct>: ",
            instruction=WEB_SEARCH,
            first_label="\n<Query>: ",
            second_label="\n<Document>: ",
            after="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        yes="yes",
        no="no",
        max_tokens=8192,
    ),
}
