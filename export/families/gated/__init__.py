"""Encoders with gated feed-forward layers, whose positions are in the attention: rotary ones or ALiBi."""
