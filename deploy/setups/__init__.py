"""Reference set-ups of several machines; docs/en/how-to/beyond-one-machine.md explains them."""
