"""Examine the machine and the settings, before a server runs or while it does."""
