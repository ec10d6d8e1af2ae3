"""Calls of the tasks and of the agent in `shop.py`."""

from celery import chain, chord, group
from shop import order, report, upper, writer

# A task and a run.
print(upper.delay("a queue").get(timeout=60))
print(writer.delay("What is a queue?").get(timeout=60))

# From a task to the agent, and back.
print(chain(order.s(17), writer.s(), upper.s()).delay().get(timeout=60))

# Runs and tasks side by side; a task, or the agent, gets all of their results.
print(group(writer.s("a"), order.s(18)).delay().get(timeout=60))
print(chord([writer.s("locks"), order.s(19)], report.s()).delay().get(timeout=60))
print(chord([order.s(20), writer.s("leases")], writer.s("Compare them.")).delay().get(timeout=60))

# A task that follows a run, which you wait for by its own id.
saved = upper.s()
told = saved.freeze()
writer.apply_async(("a callback",), link=saved)
print(told.get(timeout=60))
