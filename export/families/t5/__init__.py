"""The encoder of a T5 as an encoder of texts: sentence-t5, gtr-t5, instructor."""
