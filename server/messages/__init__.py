"""What a person reads at the terminal, in English or Chinese, from one catalogue with both."""
