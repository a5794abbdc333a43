"""The commands, grouped by what they work on.

A command imports what it needs when it runs: --help answers at once, and a backup loads no model.
"""
