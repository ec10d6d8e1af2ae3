-- Searching. What finds and weighs is agno.search, in search_functions.sql.

-- name: search
-- One round trip: the version, and the hits unless they are known for that version.
SELECT agno.search(%(asked)s, %(vector)s::text) AS found;
