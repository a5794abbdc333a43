"""Who may ask, how much, and the record of it."""
