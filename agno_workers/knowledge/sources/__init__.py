"""Where documents come from, one file a kind: finding them, and fetching their bytes."""
