"""The longest text that a network reads, from its config.json, before the network is loaded."""

from export.source.json_file import Json, size

# These count the positions of a text from behind their padding token, as RoBERTa does.
FROM_PADDING = (
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
# What a network has that does not say.
DEFAULT = 512


def positions_of(config: Json) -> int:
    """Return how many tokens of a text have a position of their own."""
    key = "n_positions" if "n_positions" in config else "max_position_embeddings"
    positions = size(config, key, DEFAULT)
    if config.get("model_type") not in FROM_PADDING:
        return positions
    # The first position is that behind padding, which the library gives the number 1 by default.
    return positions - 1 - size(config, "pad_token_id", 1, least=0)
