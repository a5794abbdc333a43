"""Serves vectors and search from an exported artifact; imports nothing that trains or exports."""

VERSION = "0.1.0"
# The day of this version, UTC: a clock that shows an earlier one is wrong.
BUILT = "2026-11-25"
