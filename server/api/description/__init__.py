"""The names and the example answers of the operations, for /openapi.json."""
