-- No statement used it.
DROP INDEX IF EXISTS agno.document_sha256;
