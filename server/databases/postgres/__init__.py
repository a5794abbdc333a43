"""PostgreSQL with the extension pgvector: documents, exact filters, words and vectors in plain tables.

The client is pg8000. It is BSD, in Python alone and blocking, as the calls of the seam are. asyncpg (Apache) is faster
at decoding rows, but would need an event loop in a thread of its own for every call; psycopg is LGPL. What is large,
rows that are written, goes by COPY, where the client only passes bytes on.
"""
