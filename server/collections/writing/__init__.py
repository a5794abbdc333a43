"""Writes that embed nothing: vectors that are given, and metadata that is changed alone."""
