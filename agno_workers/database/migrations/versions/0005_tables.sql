-- What the tables of 0004 need to be fast.

-- As in 0004: the same order of locks as workers and clients.
LOCK TABLE agno.run IN EXCLUSIVE MODE;
