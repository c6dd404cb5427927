"""Recordings in files: CSV and Parquet, in and out."""
