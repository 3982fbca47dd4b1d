"""Tokens to batches: shards on disk, packing, loading."""
