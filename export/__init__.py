"""Turns a checkpoint into the artifact that `server` serves; never imported by it."""
