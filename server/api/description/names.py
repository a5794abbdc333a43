"""The operationId of each operation: the name of its function in generated clients and of its tool."""

import re

# Prefix of the paths of a named collection. Without it, a path is that of the default collection.
COLLECTION = "/collections/{collection}"
# Those of this server's own form. The others are named by method and path.
NAMES = {
    "POST /embed": "embed",
    "POST /rerank": "rerank",
    "POST /search": "search",
    "POST /documents": "add_documents",
    "GET /documents": "list_documents",
    "POST /documents/delete": "remove_documents",
    "POST /files": "add_file",
    "GET /metadata": "describe_metadata",
    "GET /map": "map_chunks",
    "POST /documents/count": "count_documents",
    "POST /documents/get": "get_documents",
    "POST /documents/export": "export_documents",
    "PATCH /documents": "change_documents",
    "GET /documents/{id}": "get_document",
    "PATCH /documents/{id}": "change_document",
    "DELETE /documents/{id}": "remove_document",
    "GET /stats": "stats",
    "POST /reindex": "reindex",
    "POST /transfer": "transfer",
    "GET /transfer": "get_transfer",
    "DELETE /transfer": "stop_transfer",
    "GET /collections": "list_collections",
    "POST /collections": "create_collection",
    f"GET {COLLECTION}": "get_collection",
    f"DELETE {COLLECTION}": "remove_collection",
    "POST /rename": "rename_collection",
    "GET /outbox": "get_outbox",
    "POST /outbox/retry": "retry_outbox",
    "POST /outbox/set-aside": "set_write_aside",
    "DELETE /outbox/set-aside": "forget_writes_set_aside",
    "GET /words": "get_words",
    "PUT /words": "set_words",
    "POST /backup": "backup_collection",
    "POST /restore": "restore_collection",
    "GET /aliases": "list_aliases",
    "GET /aliases/{alias}": "get_alias",
    "PUT /aliases/{alias}": "set_alias",
    "DELETE /aliases/{alias}": "remove_alias",
    "GET /": "get_root",
    "POST /": "post_root",
    "POST /vectors/": "post_vectors_of_model",
    "GET /info": "info",
    "GET /health": "health",
    "GET /ready": "ready",
    "GET /metrics": "metrics",
    "GET /docs": "docs",
    "GET /key": "describe_key",
    "GET /manual": "manual",
    "GET /manual/{page}": "manual_page",
    "GET /ui/{file}": "page_file",
    "GET /openapi.json": "openapi_document",
}


def operation_id(method: str, path: str) -> str:
    """Return the name of an operation; path: with its parameters in braces."""
    if found := NAMES.get(f"{method} {path}"):
        return found
    inside = path.removeprefix(COLLECTION)
    if inside != path and (found := NAMES.get(f"{method} {inside}")):
        return f"{found}_in_collection"
    return re.sub(r"[^a-z0-9]+", "_", f"{method}{path}".lower()).strip("_")
