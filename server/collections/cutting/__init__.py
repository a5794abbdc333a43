"""How a text is cut: into pieces that stay together, which are packed into chunks."""
