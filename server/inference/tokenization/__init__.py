"""What the tokenizer rests on: the check of its description, and a shortcut for known words."""
