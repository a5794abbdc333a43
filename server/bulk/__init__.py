"""Corpora embedded in bulk, on this machine or on several: files in, Parquet files with vectors out."""
