"""The command `evaluate`: how well a collection answers questions whose right documents are known."""
