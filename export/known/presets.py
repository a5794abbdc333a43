"""Instructions and shorter sizes that published models were trained with, and the source of each.

A folder's own prompts win over this table, and the options of the command win over both.
"""

import re
from typing import NamedTuple

from export.known.models import PUBLISHED
from server.messages.message import Message

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
REPRESENT = "Represent this sentence for searching relevant passages: "


class Preset(NamedTuple):
    """What is known of a group of models.

    name: for people. pattern: found in the lower-case id of each. source: the model whose published card and
    settings state query, document and sizes. sizes: shorter vectors that they were trained to be cut to.
    pair_prompt: the name of the prompt (`pair_prompts`) in which they read pairs of texts.
    include_prompt: whether pooling reads the tokens of an instruction, where their folders do not say it.
    """

    name: str
    pattern: str
    source: str
    query: str = ""
    document: str = ""
    sizes: tuple[int, ...] = ()
    pair_prompt: str | None = None
    include_prompt: bool = True

    def names(self, identifier: str) -> bool:
        """Return whether this group is the first whose pattern is in an id or a path."""
        return next((each for each in PRESETS if each.is_in(identifier)), None) is self

    def is_in(self, identifier: str) -> bool:
        return re.search(self.pattern, identifier.lower()) is not None

    @property
    def stated(self) -> Message:
        """Where this is stated, for people."""
        return Message("what is published with {model}", model=self.source)

    def shapes(self) -> set[tuple[str, int, int]]:
        """Return (model_type, layers, hidden) of its published models."""
        return {
            (model.model_type, model.layers, model.hidden)
            for model in PUBLISHED
            if self.names(model.name)
        }


# Begins a name: behind a folder, an organisation, or a word before it.
START = r"(?:^|[/_-])"
# The first whose pattern is found decides.
PRESETS = (
    # Trained without an instruction, as their names say; so before the models they resemble.
    Preset("bge-*-noinstruct", r"bge-.*noinstruct", "BAAI/bge-large-zh-noinstruct"),
    Preset(
        "bge-*-zh",
        r"bge-(small|base|large)-zh",
        "BAAI/bge-large-zh-v1.5",
        "为这个句子生成表示以用于检索相关文章：",
    ),
    Preset(
        "bge-*-en",
        r"bge-(small|base|large)-en",
        "BAAI/bge-large-en-v1.5",
        REPRESENT,
    ),
    Preset("bge-m3", r"bge-m3", "BAAI/bge-m3"),
    Preset(
        "llm-embedder",
        r"llm-embedder",
        "BAAI/llm-embedder",
        "Represent this query for retrieving relevant documents: ",
        "Represent this document for retrieval: ",
    ),
    Preset(
        "e5-instruct",
        START + r"e5-[\w.-]*instruct",
        "intfloat/multilingual-e5-large-instruct",
        f"Instruct: {WEB_SEARCH}\nQuery: ",
    ),
    Preset(
        "e5",
        rf"{START}e5-(small|base|large)",
        "intfloat/multilingual-e5-large",
        "query: ",
        "passage: ",
    ),
    Preset(
        "nomic-embed-text-v1.5",
        r"nomic-embed-text-v1\.5",
        "nomic-ai/nomic-embed-text-v1.5",
        "search_query: ",
        "search_document: ",
        (64, 128, 256, 512),
    ),
    Preset(
        "nomic-embed-text-v2, modernbert-embed",
        r"nomic-embed-text-v2|modernbert-embed",
        "nomic-ai/nomic-embed-text-v2-moe",
        "search_query: ",
        "search_document: ",
        (256,),
    ),
    Preset(
        "nomic-embed-text",
        r"nomic-embed-text",
        "nomic-ai/nomic-embed-text-v1",
        "search_query: ",
        "search_document: ",
    ),
    Preset(
        "deepset-mxbai-embed-de",
        r"mxbai-embed-de",
        "mixedbread-ai/deepset-mxbai-embed-de-large-v1",
        "query: ",
        "passage: ",
    ),
    Preset(
        "mxbai-embed",
        r"mxbai-embed",
        "mixedbread-ai/mxbai-embed-large-v1",
        REPRESENT,
        sizes=(512,),
    ),
    Preset(
        "arctic-embed-v2",
        r"arctic-embed-\w+-v2",
        "Snowflake/snowflake-arctic-embed-l-v2.0",
        "query: ",
        sizes=(256,),
    ),
    Preset(
        "arctic-embed-m-v1.5",
        r"arctic-embed-m-v1\.5",
        "Snowflake/snowflake-arctic-embed-m-v1.5",
        REPRESENT,
        sizes=(256,),
    ),
    Preset(
        "arctic-embed",
        r"arctic-embed",
        "Snowflake/snowflake-arctic-embed-m",
        REPRESENT,
    ),
    Preset(
        "gte-Qwen",
        rf"{START}gte-qwen",
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        f"Instruct: {WEB_SEARCH}\nQuery: ",
    ),
    Preset(
        "gte-multilingual",
        rf"{START}gte-multilingual-base",
        "Alibaba-NLP/gte-multilingual-base",
        sizes=(128, 256, 512),
    ),
    Preset(
        "gte",
        rf"{START}gte-",
        "thenlper/gte-large",
    ),
    Preset(
        "Qwen3-Embedding",
        r"qwen3-embedding",
        "Qwen/Qwen3-Embedding-0.6B",
        f"Instruct: {WEB_SEARCH}\nQuery:",
        sizes=(32, 64, 128, 256, 512, 768, 1024, 2048),
    ),
    Preset(
        "Qwen3-Reranker",
        r"qwen3-reranker",
        "Qwen/Qwen3-Reranker-0.6B",
        pair_prompt="qwen3",
    ),
    Preset(
        "jina-embeddings-v3",
        r"jina-embeddings-v3",
        "jinaai/jina-embeddings-v3",
        "Represent the query for retrieving evidence documents: ",
        "Represent the document for retrieval: ",
        (32, 64, 128, 256, 512, 768),
    ),
    Preset(
        "jina-embeddings-v2",
        r"jina-embeddings-v2",
        "jinaai/jina-embeddings-v2-base-en",
    ),
    Preset(
        "stella_en",
        r"stella_en",
        "dunzhang/stella_en_400M_v5",
        f"Instruct: {WEB_SEARCH}.\nQuery: ",
    ),
    Preset(
        "stella-mrl",
        r"stella-mrl-large-zh-v3\.5",
        "dunzhang/stella-mrl-large-zh-v3.5-1792d",
        sizes=(128, 256, 512, 768, 1024, 1280, 1536),
    ),
    Preset("stella-zh", r"stella-\w+-zh-v[23]", "dunzhang/stella-large-zh-v3-1792d"),
    Preset(
        "instructor",
        rf"{START}instructor-(base|large|xl)",
        "hkunlp/instructor-large",
        "Represent the question for retrieving supporting documents: ",
        "Represent the document for retrieval: ",
        include_prompt=False,
    ),
    Preset(
        "GritLM",
        r"gritlm",
        "GritLM/GritLM-7B",
        f"<|user|>\n{WEB_SEARCH}\n<|embed|>\n",
        "<|embed|>\n",
    ),
    Preset(
        "embeddinggemma",
        r"embeddinggemma",
        "google/embeddinggemma-300m",
        "task: search result | query: ",
        "title: none | text: ",
        (128, 256, 512),
    ),
    Preset("acge", r"acge_text_embedding", "aspire/acge_text_embedding", sizes=(1024,)),
    Preset("text2vec", r"text2vec-", "shibing624/text2vec-base-chinese"),
    Preset("m3e", rf"{START}m3e-", "moka-ai/m3e-base"),
    Preset("bce-embedding", r"bce-embedding", "maidalun1020/bce-embedding-base_v1"),
    Preset("Conan-embedding-v1", r"conan-embedding-v1", "TencentBAC/Conan-embedding-v1"),
    Preset("all-MiniLM", r"all-minilm-", "sentence-transformers/all-MiniLM-L6-v2"),
    Preset(
        "all-mpnet, multi-qa-mpnet, paraphrase-mpnet",
        r"(all|multi-qa|paraphrase(-multilingual)?)-mpnet-base",
        "sentence-transformers/all-mpnet-base-v2",
    ),
    Preset(
        "sentence-t5, gtr-t5",
        rf"{START}(sentence|gtr)-t5-",
        "sentence-transformers/sentence-t5-base",
    ),
)
