"""One run, step by step: the only place where rooms and walls meet while a run moves."""
