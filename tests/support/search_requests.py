"""Random searches with any options, the documents that they find, and which of them are refused."""

import random
from collections.abc import Callable, Sequence
from typing import Any

Body = dict[str, Any]
Document = dict[str, Any]
QUERIES = ("天气", "search 墨池", "笔纸 server 天气", "风花", '"天气 search"', "天气 -墨池", "zzz")
WORDS = ("墨池", "天气", "search", "server", "笔纸", "风花", "雪月")
KINDS: Sequence[Any] = ("law", "rule", 1, True, None, ["law", "rule"], {"deep": 1}, 1.5, "1")
KEYS = ("n", "kind", "by.year", "by", "none")
FILTERS: Sequence[tuple[Body, Callable[[Document], bool]]] = (
    ({"n": {"$gte": 10}}, lambda each: each["metadata"]["n"] >= 10),
    ({"kind": "law"}, lambda each: "law" in listed(each["metadata"].get("kind"))),
    ({"n": {"$lt": 3}}, lambda each: each["metadata"]["n"] < 3),
    ({"n": -1}, lambda each: False),
    ({"$text": {"$contains": "墨池"}}, lambda each: "墨池" in each["text"]),
    ({"$not": {"by.year": 2001}}, lambda each: each["metadata"]["by"]["year"] != 2001),
)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def documents(seed: int, number: int, prefix: str = "d") -> list[Document]:
    pick = random.Random(seed)
    found = []
    for n in range(number):
        words = [pick.choice(WORDS) for _ in range(pick.choice((1, 2, 3, 12, 20)))]
        metadata: Body = {"n": n % 17, "by": {"year": 2000 + n % 4}}
        if n % 5:
            metadata["kind"] = KINDS[n % len(KINDS)]
        each: Document = {"id": f"{prefix}{n}", "text": " ".join(words), "metadata": metadata}
        each["title"] = pick.choice(WORDS) if n % 7 == 0 else None
        found.append(each)
    # The same text twice: equal scores.
    found[-1]["text"] = found[-2]["text"] = found[0]["text"]
    return found


def some_request(pick: random.Random, ids: Sequence[str], vectors: Sequence[Any]) -> Body:
    """Return a request with any options, which may not go together."""
    mode = pick.choice(("dense", "lexical", "hybrid"))
    body: Body = {"mode": mode, "top_k": pick.choice((1, 3, 7, 50))}
    source = pick.choice(("query", "query", "query", "queries", "vector", "like", "none"))
    if source == "query" or (source in ("vector", "like") and mode == "hybrid"):
        body["query"] = pick.choice(QUERIES)
    if source == "queries":
        body["queries"] = pick.sample(QUERIES, 2)
    if source == "vector":
        body["vector"] = [float(x) for x in pick.choice(vectors)]
    if source == "like":
        body["like"] = {"ids": pick.sample(ids, 2), "unlike": pick.sample(ids, pick.choice((0, 1)))}

    def maybe(name: str, value: Any, chance: float = 0.25) -> None:
        if pick.random() < chance:
            body[name] = value

    if source == "none" or pick.random() < 0.2:
        keys = pick.sample(KEYS, pick.choice((1, 2)))
        order = [{"key": key, "order": pick.choice(("asc", "desc"))} for key in keys]
        body["sort"] = {"by": order, "candidates": pick.choice((12, 60))}
    maybe("group_by", {"key": pick.choice(KEYS), "hits": pick.choice((1, 4))}, 0.15)
    maybe("diversity", {"lambda": pick.choice((0.0, 0.3, 1.0)), "candidates": 60}, 0.15)
    maybe("rerank", {"top_n": 50} | pick.choice(({}, {"min_score": 0.4})), 0.15)
    maybe("filter", pick.choice(FILTERS)[0], 0.4)
    maybe("min_score", pick.choice((-0.5, 0.3, 0.6, 2.0)))
    maybe("offset", pick.choice((1, 5, 60)))
    maybe("cursor", "", 0.15)
    maybe("explain", True)
    maybe("parts", pick.choice((1, 3)))
    maybe("include_document", True)
    maybe("include_vectors", True)
    maybe("include_headings", True)
    maybe("highlight", True)
    maybe("facets", pick.sample(KEYS, 2))
    if mode == "hybrid":
        maybe("fusion", "rrf", 0.4)
        maybe("weights", {"dense": pick.choice((0.0, 0.5, 1.0)), "lexical": 0.7})
    return body


def refusal(body: Body) -> str:
    """Return a word of the message that refuses the request; empty where it is all right."""
    given = {name for name in ("query", "queries", "vector", "like") if name in body}
    is_listing = "sort" in body and not given
    orders = [name for name in ("group_by", "sort", "diversity") if name in body]
    end = body.get("offset", 0) + body["top_k"]
    one = [
        ((is_listing and body["mode"] != "dense") or (not given and not is_listing), "needed"),
        (
            is_listing and {"highlight", "rerank", "min_score", "explain", "parts"} & body.keys(),
            "needs a query",
        ),
        ({"vector", "like"} & given and body["mode"] == "lexical", "goes with mode"),
        (body["mode"] == "hybrid" and not {"query", "queries"} & given, "needs"),
        ("offset" in body and "cursor" in body, "not both"),
        (len(orders) > 1, "decide the order"),
        ("group_by" in body and {"offset", "cursor"} & body.keys(), "pages hits and not groups"),
        ("queries" in body and {"cursor", "group_by"} & body.keys(), "goes with one query"),
        ("rerank" in body and not {"query", "queries"} & given, "rerank"),
        ("rerank" in body and (orders or {"cursor", "like"} & body.keys()), "decides the order"),
        ("rerank" in body and end > 50, "candidates"),
        ("sort" in body and not is_listing and end > body["sort"]["candidates"], "candidates"),
        ("diversity" in body and end > 60, "candidates"),
    ]
    return next((word for condition, word in one if condition), "")
