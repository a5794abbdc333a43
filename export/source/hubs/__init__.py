"""Fetches models from hubs."""
