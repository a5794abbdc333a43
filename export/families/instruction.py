"""The tokens of an instruction that pooling leaves out: how a graph knows them.

Their ids come with an offset, the number of words (`instruction_offset` of the manifest). The graph takes
it off again for the table of words. So which tokens are left out is known for each text of any batch, and the
tokens still attend to each other.
"""

from onnx import TensorProto

from export.graph import GraphWriter
from server.inference.encoder import INPUT_IDS

# What the maximum of tokens reads in place of one that is left out; so does sentence-transformers.
LOWEST = -1e9


def write_word_ids(graph: GraphWriter, offset: int) -> str:
    """Return the ids of words, int64 (rows, columns); offset: of instructions, 0 where there is none."""
    if not offset:
        return INPUT_IDS
    read = [INPUT_IDS, graph.integers("instruction.offset", offset)]
    return graph.node("Mod", read, "instruction.word_ids")


def write_kept(graph: GraphWriter, offset: int) -> str:
    """Return which tokens pooling reads, bool (rows, columns, 1)."""
    read = [INPUT_IDS, graph.integers("instruction.offset", offset)]
    kept = graph.node("Less", read, "instruction.is_text")
    return graph.node("Unsqueeze", [kept, graph.integers("axis_2", [2])], "instruction.kept")


def write_weights(graph: GraphWriter, kept: str) -> str:
    """Return 1 for each token that pooling reads and 0 for others, float32 (rows, columns, 1)."""
    return graph.node("Cast", [kept], "instruction.weights", to=TensorProto.FLOAT)
