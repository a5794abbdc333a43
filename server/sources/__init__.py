"""Files as documents: what is found, how it is decoded, and what each format holds."""
