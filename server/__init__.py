"""The server of vectors and search from an exported artifact; it imports nothing that trains or exports."""

VERSION = "0.1.0"
# The date of this version, UTC. A clock with an earlier date is wrong.
BUILT = "2026-11-25"
