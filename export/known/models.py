"""Published models that people deploy, with the numbers of their config.json."""

from typing import NamedTuple

from export.source.json_file import Json
from server.types import Task


class Published(NamedTuple):
    """A published model: layers x hidden is its size, words the rows of its word embeddings.

    dimension: of its vectors, 0 where it is that of the network. heads: their number, those of keys and
    values, and their width, where it is not one for every 64 of hidden.
    """

    name: str
    model_type: str
    layers: int
    hidden: int
    intermediate: int
    words: int
    tokens: int
    dimension: int = 0
    task: Task = "dense"
    heads: tuple[int, int, int] | None = None

    @property
    def config(self) -> Json:
        """The keys of its config.json from which its size and its family can be seen."""
        heads, shared, width = self.heads or (self.hidden // 64, self.hidden // 64, 64)
        return {
            "model_type": self.model_type,
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": heads,
            "num_key_value_heads": shared,
            "head_dim": width,
            "intermediate_size": self.intermediate,
            "vocab_size": self.words,
            "max_position_embeddings": self.tokens,
        }


ZH, EN, XLMR, T5 = 21_128, 30_522, 250_002, 32_128
WIDE = (32, 8, 128)
SMALL, BASE, LARGE = (12, 384, 1536), (12, 768, 3072), (24, 1024, 4096)
XL = (24, 1024, 16_384)
PUBLISHED = (
    Published("BAAI/bge-small-zh-v1.5", "bert", 4, 512, 2048, ZH, 512),
    Published("BAAI/bge-base-zh-v1.5", "bert", *BASE, ZH, 512),
    Published("BAAI/bge-large-zh-v1.5", "bert", *LARGE, ZH, 512),
    Published("BAAI/bge-small-en-v1.5", "bert", *SMALL, EN, 512),
    Published("BAAI/bge-base-en-v1.5", "bert", *BASE, EN, 512),
    Published("BAAI/bge-large-en-v1.5", "bert", *LARGE, EN, 512),
    Published("BAAI/bge-m3", "xlm-roberta", *LARGE, XLMR, 8192),
    Published("intfloat/e5-small-v2", "bert", *SMALL, EN, 512),
    Published("intfloat/e5-base-v2", "bert", *BASE, EN, 512),
    Published("intfloat/e5-large-v2", "bert", *LARGE, EN, 512),
    Published("intfloat/multilingual-e5-small", "bert", *SMALL, 250_037, 512),
    Published("intfloat/multilingual-e5-base", "xlm-roberta", *BASE, XLMR, 512),
    Published("intfloat/multilingual-e5-large", "xlm-roberta", *LARGE, XLMR, 512),
    Published("intfloat/multilingual-e5-large-instruct", "xlm-roberta", *LARGE, XLMR, 512),
    Published(
        "intfloat/e5-mistral-7b-instruct", "mistral", 32, 4096, 14_336, 32_000, 4096, heads=WIDE
    ),
    Published("maidalun1020/bce-embedding-base_v1", "xlm-roberta", *BASE, XLMR, 512),
    Published("shibing624/text2vec-base-chinese", "bert", *BASE, ZH, 128),
    Published("moka-ai/m3e-base", "bert", *BASE, ZH, 512),
    Published("aspire/acge_text_embedding", "bert", *LARGE, ZH, 1024, 1792),
    Published("TencentBAC/Conan-embedding-v1", "bert", *LARGE, ZH, 512, 1792),
    Published("thenlper/gte-small", "bert", *SMALL, EN, 512),
    Published("thenlper/gte-base", "bert", *BASE, EN, 512),
    Published("thenlper/gte-large", "bert", *LARGE, EN, 512),
    Published("thenlper/gte-base-zh", "bert", *BASE, ZH, 512),
    Published("thenlper/gte-large-zh", "bert", *LARGE, ZH, 512),
    Published("Alibaba-NLP/gte-base-en-v1.5", "new", *BASE, 30_528, 8192),
    Published("Alibaba-NLP/gte-large-en-v1.5", "new", *LARGE, 30_528, 8192),
    Published("Alibaba-NLP/gte-multilingual-base", "new", *BASE, 250_048, 8192),
    Published("Alibaba-NLP/gte-modernbert-base", "modernbert", 22, 768, 1152, 50_368, 8192),
    Published(
        "Qwen/Qwen3-Embedding-0.6B", "qwen3", 28, 1024, 3072, 151_669, 32_768, heads=(16, 8, 128)
    ),
    Published("Qwen/Qwen3-Embedding-4B", "qwen3", 36, 2560, 9728, 151_665, 32_768, heads=WIDE),
    Published("Qwen/Qwen3-Embedding-8B", "qwen3", 36, 4096, 12_288, 151_665, 32_768, heads=WIDE),
    Published("minishlab/potion-multilingual-128M", "model2vec", 0, 256, 0, 500_353, 512),
    Published("mixedbread-ai/mxbai-embed-large-v1", "bert", *LARGE, EN, 512),
    Published("nomic-ai/nomic-embed-text-v1.5", "nomic_bert", *BASE, 30_528, 8192),
    Published("nomic-ai/modernbert-embed-base", "modernbert", 22, 768, 1152, 50_368, 8192),
    Published("Snowflake/snowflake-arctic-embed-xs", "bert", 6, 384, 1536, EN, 512),
    Published("Snowflake/snowflake-arctic-embed-s", "bert", *SMALL, EN, 512),
    Published("Snowflake/snowflake-arctic-embed-m-v1.5", "bert", *BASE, EN, 512),
    Published("Snowflake/snowflake-arctic-embed-l", "bert", *LARGE, EN, 512),
    Published("Snowflake/snowflake-arctic-embed-l-v2.0", "xlm-roberta", *LARGE, XLMR, 8192),
    Published("dunzhang/stella-mrl-large-zh-v3.5-1792d", "bert", *LARGE, ZH, 512, 1792),
    Published("dunzhang/stella_en_400M_v5", "new", *LARGE, 30_528, 8192),
    Published("hkunlp/instructor-base", "t5", *BASE, T5, 512),
    Published("hkunlp/instructor-large", "t5", *LARGE, T5, 512, 768),
    Published("hkunlp/instructor-xl", "t5", *XL, T5, 512, 768, heads=(32, 32, 128)),
    Published("GritLM/GritLM-7B", "mistral", 32, 4096, 14_336, 32_000, 32_768, heads=WIDE),
    Published(
        "google/embeddinggemma-300m", "gemma3_text", 24, 768, 1152, 262_144, 2048, heads=(3, 1, 256)
    ),
    Published("sentence-transformers/all-MiniLM-L6-v2", "bert", 6, 384, 1536, EN, 256),
    Published("sentence-transformers/all-mpnet-base-v2", "mpnet", *BASE, 30_527, 384),
    Published("sentence-transformers/multi-qa-mpnet-base-dot-v1", "mpnet", *BASE, 30_527, 512),
    Published("sentence-transformers/paraphrase-mpnet-base-v2", "mpnet", *BASE, 30_527, 512),
    Published("sentence-transformers/sentence-t5-base", "t5", *BASE, T5, 256),
    Published("sentence-transformers/sentence-t5-large", "t5", *LARGE, T5, 256, 768),
    Published("sentence-transformers/sentence-t5-xl", "t5", *XL, T5, 256, 768, heads=(32, 32, 128)),
    Published("sentence-transformers/gtr-t5-base", "t5", *BASE, T5, 512),
    Published("sentence-transformers/gtr-t5-large", "t5", *LARGE, T5, 512, 768),
    Published("sentence-transformers/gtr-t5-xl", "t5", *XL, T5, 512, 768, heads=(32, 32, 128)),
    Published(
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "bert", *SMALL, 250_037, 128
    ),
    Published("sentence-transformers/LaBSE", "bert", *BASE, 501_153, 256),
    Published(
        "sentence-transformers/distiluse-base-multilingual-cased-v2",
        *("distilbert", 6, 768, 3072, 119_547, 128, 512),
    ),
    Published("BAAI/bge-reranker-base", "xlm-roberta", *BASE, XLMR, 512, 1, "score"),
    Published("BAAI/bge-reranker-large", "xlm-roberta", *LARGE, XLMR, 512, 1, "score"),
    Published("BAAI/bge-reranker-v2-m3", "xlm-roberta", *LARGE, XLMR, 8192, 1, "score"),
    Published("maidalun1020/bce-reranker-base_v1", "xlm-roberta", *BASE, XLMR, 512, 1, "score"),
    Published(
        "Qwen/Qwen3-Reranker-0.6B",
        "qwen3",
        28,
        1024,
        3072,
        151_669,
        40_960,
        1,
        "score",
        heads=(16, 8, 128),
    ),
    Published(
        "Qwen/Qwen3-Reranker-4B", "qwen3", 36, 2560, 9728, 151_669, 40_960, 1, "score", heads=WIDE
    ),
    Published(
        "Qwen/Qwen3-Reranker-8B", "qwen3", 36, 4096, 12_288, 151_669, 40_960, 1, "score", heads=WIDE
    ),
)
