"""What each command does, grouped by what it works on.

A command imports what it needs when it runs: --help answers at once, and a backup loads no model.
"""
