"""Documents as readers see them: their headings, articles, tables and code, and what is no text."""
