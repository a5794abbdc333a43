"""Synonyms and stop words of a collection, in the native format."""

from server.api.body import decode, prepared
from server.api.native_errors import NATIVE
from server.api.operation import CollectionCall, CollectionOperation, collection_of, writable_of
from server.api.replies import Reply, json_body
from server.collections.administration.vocabulary import set_vocabulary, vocabulary_given
from server.store.words.vocabulary import Given, check


def inside() -> list[CollectionOperation]:
    """Return the operations on the synonyms and stop words of one collection."""
    of = "synonyms and stop words"
    return [
        CollectionOperation(NATIVE, "GET", "/words", get, f"The {of}", "search", response=(Given,)),
        CollectionOperation(
            NATIVE, "PUT", "/words", put, f"Replace the {of}", "admin", (Given,), (Given,)
        ),
    ]


async def get(call: CollectionCall) -> Reply:
    return Reply(json_body(await vocabulary_given(collection_of(call))))


async def put(call: CollectionCall) -> Reply:
    """Replace both lists; what is left out becomes empty. Searches use them at once, nothing is indexed again."""
    collection_of(call)
    given = await prepared(call.body, _checked)
    await set_vocabulary(await writable_of(call), given)
    return Reply(json_body(given))


def _checked(body: bytes) -> Given:
    given = decode(body, Given)
    check(given)
    return given
