"""Sources of documents, one file a kind: find them, and fetch their bytes."""
