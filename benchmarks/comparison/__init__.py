"""Other servers and libraries, asked the same as this one, and larger models beside them."""
