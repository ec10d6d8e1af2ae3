"""Language models behind one Protocol, `core.ports.Model`: one provider, one file.

Importing this is cheap: the first call of a model imports its provider's SDK.
"""

from agno_workers.models.resolve import resolve
from agno_workers.models.scripted import Scripted, Turn

__all__ = ["Scripted", "Turn", "resolve"]
