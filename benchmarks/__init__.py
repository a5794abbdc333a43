"""One question a script; each says in its docstring what it asks and how to run it."""
