"""What is known of published models and what their folders do not say: sizes, instructions, shorter vectors."""
