"""Connections to clients, and the processes of one server."""
