"""Requests that administer collections, in the native format."""
