"""Language models behind one Protocol, `core.ports.Model`: one provider, one file.

Importing this costs nothing: a provider's SDK is imported when one of its models is asked for the first time.
"""

from agno_workers.models.resolve import resolve
from agno_workers.models.scripted import Scripted, Turn

__all__ = ["Scripted", "Turn", "resolve"]
