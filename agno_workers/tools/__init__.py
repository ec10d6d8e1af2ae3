"""Functions that a model may call: made with `@tool`, grouped in a `Toolkit`, collected for an agent, executed."""

from agno_workers.tools.decorate import tool
from agno_workers.tools.execute import execute
from agno_workers.tools.toolkit import Toolkit, collect

__all__ = ["Toolkit", "collect", "execute", "tool"]
