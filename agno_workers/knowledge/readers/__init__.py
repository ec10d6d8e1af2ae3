"""Readers, one a format: bytes to the blocks of a document. They are given hostile files, and run in a child process."""
