"""Commands that a refusal shows: they turn a model into one that can be exported."""

import re


def merge_command(base: str, adapter: str) -> str:
    """Return a command that merges an adapter; it needs sentence-transformers and peft."""
    return (
        'python -c "from sentence_transformers import SentenceTransformer; from peft import PeftModel;'
        f" m = SentenceTransformer({quoted(base)});"
        f" m[0].auto_model = PeftModel.from_pretrained(m[0].auto_model, {quoted(adapter)})"
        ".merge_and_unload(); m.save('merged')\""
    )


def quoted(text: str) -> str:
    """Return a Python string inside a command in double quotes, or a place holder for odd names."""
    return f"'{text}'" if re.fullmatch(r"[\w./~:@ -]+", text) else "'...'"


def save_command(place: str) -> str:
    """Return a command that writes a folder in sentence-transformers' layout, with mean pooling."""
    return (
        'python -c "from sentence_transformers import SentenceTransformer;'
        f" SentenceTransformer({quoted(place)}).save('saved')\""
    )


def tokenizer_command(place: str) -> str:
    """Return a command that writes tokenizer.json; it needs transformers and sentencepiece."""
    return (
        'python -c "from transformers import AutoTokenizer;'
        f" AutoTokenizer.from_pretrained({quoted(place)}).save_pretrained('tokenizer')\""
    )
