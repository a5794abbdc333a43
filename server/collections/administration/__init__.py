"""Administers collections on the event loop: names, rights, backups and words."""
