"""A server of Milvus on a port: milvus-lite over TCP, with faults that a test asks for.

To the client it is a cluster: it keeps descriptions, refuses answers of more than 16,384 rows, and says of the
index of an array that it is there. milvus-lite by itself does none of these.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

from server.databases.milvus.marks import FIELDS

HANG, ANY = "hang", "*"
DESCRIPTION = "kept by the stand-in"
# Rows of an answer, and the code of the refusal of more.
MOST, INVALID = 16_384, 1100


class Faults(grpc.ServerInterceptor):  # type: ignore[misc]
    """Ends calls with a status instead of an answer.

    planned: the name of a status, or HANG, by the name of a call or ANY. calls: names and metadata of all calls.
    """

    def __init__(self) -> None:
        self.planned: dict[str, str] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        self.calls.append((name, dict(details.invocation_metadata)))
        fault = self.planned.get(name, self.planned.get(ANY))
        usual = continuation(details)
        if fault is None:
            return usual

        def end(request: Any, context: Any) -> None:
            while fault == HANG and context.is_active():
                time.sleep(0.01)
            context.abort(getattr(grpc.StatusCode, fault, grpc.StatusCode.CANCELLED), f"{fault}!")

        return grpc.unary_unary_rpc_method_handler(
            end, usual.request_deserializer, usual.response_serializer
        )


class Servicer(MilvusServicer):  # type: ignore[misc]
    def Query(self, request: Any, context: Any) -> Any:
        limits = [int(each.value) for each in request.query_params if each.key == "limit"]
        if max(limits, default=0) > MOST:
            status = common_pb2.Status(code=INVALID, reason=f"limit is over {MOST}")
            return milvus_pb2.QueryResults(status=status)
        return super().Query(request, context)

    def CreateCollection(self, request: Any, context: Any) -> Any:
        schema = schema_pb2.CollectionSchema.FromString(request.schema)
        request.properties.add(key=DESCRIPTION, value=schema.description)
        return super().CreateCollection(request, context)

    def DescribeCollection(self, request: Any, context: Any) -> Any:
        response = super().DescribeCollection(request, context)
        for each in response.properties:
            if each.key == DESCRIPTION:
                response.schema.description = each.value
        return response

    def CreateIndex(self, request: Any, context: Any) -> Any:
        if request.field_name in FIELDS:
            return common_pb2.Status()
        return super().CreateIndex(request, context)


class Server:
    """A running server. url: where it listens."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._engine = MilvusLite(str(folder))
        self.faults = Faults()
        self._server = grpc.server(ThreadPoolExecutor(8), interceptors=[self.faults])
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Servicer(self._engine), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.stop(grace=0).wait()
        self._engine.close()


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[Server]:
    server = Server(folder, port)
    try:
        yield server
    finally:
        server.close()
