"""The room of knowledge: from bytes to a document and its chunks, and from a question to what is searched for. No walls."""
