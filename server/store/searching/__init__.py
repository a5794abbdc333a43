"""What a search may ask for besides the best hits."""
