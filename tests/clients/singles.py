"""One text in, its vector out, with what each section's code leaves behind."""

from collections.abc import Callable, Mapping
from typing import Any

MODEL = "bge-small-zh-v1.5"
Names = Mapping[str, Any]

SINGLES: Mapping[str, Callable[[Names, str], Any]] = {
    "openai": lambda found, text: found["embed"](MODEL, text)[0],
    "LangChain, OpenAIEmbeddings": lambda found, text: found["documents"].embed_query(text),
    "LangChain, HuggingFaceEndpointEmbeddings": lambda found, text: found["documents"].embed_query(
        text
    ),
    "LlamaIndex, OpenAILikeEmbedding": lambda found, text: found["documents"].get_text_embedding(
        text
    ),
    "LlamaIndex, TextEmbeddingsInference": lambda found, text: found["client"].get_text_embedding(
        text
    ),
    "huggingface_hub": lambda found, text: found["client"].feature_extraction(text)[0],
    "ollama": lambda found, text: found["embed"](MODEL, text)[0],
}
