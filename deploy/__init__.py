"""Everything for a machine without a network: one archive, its installer, and examples around them."""
