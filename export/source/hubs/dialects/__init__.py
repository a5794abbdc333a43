"""How each kind of hub is asked: addresses, lists of files, credentials and refusals."""
