"""One SQLite file: connections, transactions, limits of a read, and advice when it fails."""
