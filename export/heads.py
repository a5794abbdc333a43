"""The head that a checkpoint's rows reach, where it gives more than one vector a text, with its tensors."""

from typing import NamedTuple

from export.families.row_heads import RowHead, TokenProjection, TokenWeights
from export.families.word_head import WordWeights, bias_of
from export.outline import Outline
from export.source.folder import ModelFolder
from export.source.heads import SPARSE_HEAD, read_head, unweighted_ids
from export.source.tensors import Tensors, check_tensors
from server.inference.manifest import MOST_DIMENSIONS


class Headed(NamedTuple):
    """A head with its tensors, which are checked."""

    head: RowHead
    tensors: Tensors


def read_headed(
    files: ModelFolder, outline: Outline, network: Tensors, *, allow_pickle: bool
) -> Headed | None:
    """Return the head of a checkpoint, None where it has none; raises an ExportError.

    network: the tensors of its weights.
    """
    hidden = outline.shape.hidden
    if outline.splade is not None and outline.family.masked_head is not None:
        names = outline.family.masked_head(outline.shape)
        words = WordWeights(
            names,
            outline.splade,
            hidden,
            outline.shape.vocabulary,
            tied=outline.config.get("tie_word_embeddings") is not False,
            bias=bias_of(network, names),
        )
        check_tensors(network, words.tensors())
        return Headed(words, network)
    if outline.stored_head is None:
        return None
    tensors = read_head(files, outline.modules, outline.stored_head, allow_pickle=allow_pickle)
    head: RowHead
    if outline.stored_head == SPARSE_HEAD:
        head = TokenWeights(hidden, unweighted_ids(files, outline.modules, outline.tokenizer_json))
    else:
        bias = tensors.get(f"{outline.stored_head}.bias")
        width = hidden if bias is None else bias.size
        # Another width than this gives no vectors, and none is known that has it.
        head = TokenProjection(hidden, width if 1 <= width <= MOST_DIMENSIONS else hidden)
    check_tensors(tensors, head.tensors())
    return Headed(head, tensors)
