"""Embedding models, one file a provider.

Importing this costs nothing: numpy, onnxruntime or an SDK are imported when a name that needs them is resolved.
"""

from agno_workers.knowledge.embedders.resolve import resolve

__all__ = ["resolve"]
