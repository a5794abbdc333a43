"""The two collections of Milvus that hold one of ours: its chunks, and further pieces of long texts.

Chunks hold everything that is searched. A text of more than 65,535 bytes goes on in the collection of pieces, whose
vectors mean nothing: Milvus takes no collection without one.
"""

import json
from typing import Any

from server.databases.milvus.client import DataType, Function, FunctionType, MilvusClient
from server.databases.milvus.marks import FIELDS
from server.databases.milvus.pieces import MOST_BYTES
from server.store.records import ChunkRules, Info

# Behind a collection's name. Names of ours have no capitals, so none of them ends like this.
PIECES = "_PIECES"
# The property of a collection that says what it was made for, where its description does not.
PROPERTY = "inkwell.collection"
# Elements that an array of Milvus takes, and bytes that a JSON field takes.
MOST_MARKS, MOST_BOUNDS = 4_096, 65_536
MARK_LENGTH = 32
# Reads see every write before them, also of other servers.
STRONG = "Strong"
# The width of the vector that a piece must have.
PLACEHOLDER = (0.0, 0.0)
# Neighbours of a node of HNSW, and those looked at while it is built; figures of Milvus's own automatic index for
# vectors of common widths. Every vector is kept in float32, so that scores are exact.
HNSW = {"M": 24, "efConstruction": 200}


def pieces_of(name: str) -> str:
    """Return the name of the collection that holds a collection's further pieces."""
    return f"{name}{PIECES}"


def written(info: Info) -> str:
    """Return what the database keeps of a collection's description."""
    chunks = [info.chunks.size, info.chunks.overlap] if info.chunks else None
    return json.dumps([info.fingerprint, info.dimension, chunks], ensure_ascii=False)


def read(name: str, described: dict[str, Any]) -> Info | None:
    """Return what a collection was made for; None where another program made it."""
    kept = dict(described.get("properties") or {}).get(PROPERTY) or described.get("description")
    try:
        fingerprint, dimension, chunks = json.loads(kept or "null")
        rules = ChunkRules(*chunks) if chunks else None
    except (TypeError, ValueError):
        return None
    return Info(name, str(fingerprint), int(dimension), rules)


def chunk_schema(info: Info) -> Any:
    """Return the fields of the collection of chunks."""
    schema = MilvusClient.create_schema(auto_id=False, description=written(info))
    schema.add_field("label", DataType.INT64, is_primary=True)
    schema.add_field("number", DataType.INT64)
    schema.add_field("head", DataType.BOOL)
    schema.add_field("owner", DataType.VARCHAR, max_length=MARK_LENGTH)
    schema.add_field("digest", DataType.VARCHAR, max_length=256)
    for field in ("chunk", "document", "terms"):
        schema.add_field(field, DataType.VARCHAR, max_length=MOST_BYTES)
        schema.add_field(f"{field}_pieces", DataType.INT64)
    for field in FIELDS:
        schema.add_field(
            field,
            DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_capacity=MOST_MARKS,
            max_length=MARK_LENGTH,
        )
    schema.add_field("bounds", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=info.dimension)
    schema.add_field("words", DataType.VARCHAR, max_length=MOST_BYTES, enable_analyzer=True)
    schema.add_field("bm25", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name="bm25_of_words",
            function_type=FunctionType.BM25,
            input_field_names=["words"],
            output_field_names=["bm25"],
        )
    )
    return schema


def chunk_indexes(*, local: bool) -> Any:
    """Return the indexes of the collection of chunks, named as their fields.

    local: of milvus-lite, which compares all vectors.
    """
    indexes = MilvusClient.prepare_index_params()
    vector = {"index_type": "FLAT"} if local else {"index_type": "HNSW", "params": HNSW}
    indexes.add_index("vector", index_name="vector", metric_type="COSINE", **vector)
    words = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25"}
    indexes.add_index("bm25", index_name="bm25", **words)
    if not local:  # which indexes no arrays, and looks at each row
        for field in (*FIELDS, "owner", "number"):
            indexes.add_index(field, index_name=field, index_type="INVERTED")
    return indexes


def piece_schema() -> Any:
    """Return the fields of the collection of pieces."""
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("piece", DataType.VARCHAR, max_length=MOST_BYTES)
    schema.add_field("placeholder", DataType.FLOAT_VECTOR, dim=len(PLACEHOLDER))
    return schema


def piece_indexes() -> Any:
    indexes = MilvusClient.prepare_index_params()
    field = "placeholder"
    indexes.add_index(field, index_name=field, index_type="FLAT", metric_type="L2")
    return indexes
