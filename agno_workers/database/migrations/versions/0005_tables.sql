-- Changes for speed.

-- The same order of locks as in workers and clients, see 0004.
LOCK TABLE agno.run IN EXCLUSIVE MODE;
