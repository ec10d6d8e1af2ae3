"""Embedding models, one file a provider."""
