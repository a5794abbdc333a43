"""Sentences for people at the terminal, in English or Chinese, from one catalogue."""
