"""The condition by which a search for words finds only selected labels."""

from server.store.selection import Selection

# The table has a byte for each label; SQLite looks one up in 0.1 us, and ranks a text in 1 us or more.
WITHIN = " AND rowid BETWEEN ? AND ? AND substr(?, rowid - ?, 1) = x'01'"
AMONG = " AND +rowid IN (SELECT value FROM json_each(?))"


def selected(within: Selection | None) -> tuple[str, list[int | str | bytes]]:
    """Return SQL that follows a condition on `rowid`, and its parameters."""
    if within is None:
        return "", []
    dense = within.dense()
    if dense is None:
        # subtle: without the plus sign SQLite looks the words up again for each label.
        return AMONG, [f"[{','.join(map(str, within.labels.tolist()))}]"]
    first, table = dense
    # subtle: SQLite counts bytes from 1.
    return WITHIN, [first, first + len(table) - 1, table.tobytes(), first - 1]
