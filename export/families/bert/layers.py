"""The linear layers of a BERT: their names, the sites they read, and their float32 form.

Names follow the checkpoint: encoder.layer.0.attention.self.query, and so on. With CLS pooling the last
layer's keys and values are one linear layer a head, ...self.key.0 and so on, because they are applied
to the one row that is read instead of to all tokens (`encoder.BertWriter` says how): a key layer takes
a head's part of the query to a row of tokens' width, a value layer back to the head's part of the
output.
"""

from dataclasses import dataclass

import numpy as np

from export.families.bert.attention import LONG, LONGEST
from export.families.bert.shape import BertShape
from export.families.family import Layer, LongAttention
from export.families.linears import FloatLinear, Readers, Site
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors


@dataclass(frozen=True, slots=True)
class BertLayer:
    """The sites of one layer, each with its linear layers.

    attention is read by the query, and by keys and values too where these are computed for all
    tokens. by_head: keys and values are one linear layer a head, of the one row that is pooled. long: see
    `Layer.attention`.
    """

    name: str
    by_head: bool
    attention: Site
    keys: Site
    values: Site
    context: Site
    intermediate: Site
    output: Site
    long: LongAttention | None = None

    @property
    def linears(self) -> Readers:
        """The names of the linear layers, each once."""
        sites = (self.attention, self.keys, self.values)
        after = (self.context, self.intermediate, self.output)
        return tuple(dict.fromkeys(name for site in (*sites, *after) for name in site.readers))

    def described(self) -> Layer:
        """Return the layer as the quantiser sees it."""
        after = (self.context, self.intermediate, self.output)
        if self.by_head:
            return Layer((self.attention, self.keys, self.values, *after), by_text=True)
        return Layer((self.attention, *after), attention=self.long)

    def float_linears(self, tensors: Tensors) -> dict[str, FloatLinear]:
        """Return every linear layer, as the checkpoint has it."""
        found = {
            site.readers[0]: _stored(tensors, site.readers[0])
            for site in (self.attention, self.context, self.intermediate, self.output)
        }
        key, value = _stored(tensors, self.keys.name), _stored(tensors, self.values.name)
        keys, values = [key], [value]
        if self.by_head:
            heads = len(self.keys.readers)
            keys, values = _keys_by_head(key, heads), _by_head(value, heads)
        found |= zip(self.keys.readers, keys, strict=True)
        found |= zip(self.values.readers, values, strict=True)
        return found


def layer_of(shape: BertShape, settings: SentenceSettings, index: int) -> BertLayer:
    name = f"encoder.layer.{index}"
    # Only the first row of each text is ever read of the last layer's output.
    by_head = settings.pooling == "cls" and index == shape.layers - 1
    attention = f"{name}.attention.self"

    def projected(part: str) -> Site:
        readers: Readers = (f"{attention}.{part}",)
        if by_head:
            readers = tuple(f"{attention}.{part}.{head}" for head in range(shape.heads))
        return Site(f"{attention}.{part}", readers, by_head=by_head)

    def dense(part: str, *, blockwise: bool = False, folds_into: Readers = ()) -> Site:
        dense_name = f"{name}.{part}.dense"
        return Site(dense_name, (dense_name,), blockwise=blockwise, folds_into=folds_into)

    keys, values = projected("key"), projected("value")
    context = dense("attention.output", folds_into=values.readers)
    query, long = f"{attention}.query", None
    readers: Readers = (query,)
    if not by_head:
        (key,), (value,) = keys.readers, values.readers
        readers = (query, key, value)
        # Int8 has no form for a bias by distance.
        if LONG <= settings.max_tokens <= LONGEST and shape.buckets is None:
            long = LongAttention(query, key, value, context.name)
    return BertLayer(
        name,
        by_head,
        attention=Site(attention, readers),
        keys=keys,
        values=values,
        context=context,
        intermediate=dense("intermediate"),
        # Too little work to be felt, and nothing that rounds comes after it: see `quantise`.
        output=dense("output", blockwise=by_head),
        long=long,
    )


def _stored(tensors: Tensors, name: str) -> FloatLinear:
    weight = np.ascontiguousarray(tensors[f"{name}.weight"].T)
    return FloatLinear(weight, tensors[f"{name}.bias"])


def _by_head(linear: FloatLinear, heads: int) -> list[FloatLinear]:
    weights = np.split(linear.weight, heads, axis=1)
    return [
        FloatLinear(np.ascontiguousarray(weight), bias)
        for weight, bias in zip(weights, np.split(linear.bias, heads), strict=True)
    ]


def _keys_by_head(linear: FloatLinear, heads: int) -> list[FloatLinear]:
    """Return layers from a head's part of the query to the width of a token.

    The bias of the keys is left out: it adds the same to all scores of a query, which changes nothing.
    """
    return [
        FloatLinear(np.ascontiguousarray(part.weight.T), np.zeros(len(part.weight), np.float32))
        for part in _by_head(linear, heads)
    ]
