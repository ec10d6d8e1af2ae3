"""Embedding models, one file a provider.

Importing this is cheap: resolving a name imports the numpy, onnxruntime or SDK that it needs.
"""

from agno_workers.knowledge.embedders.resolve import resolve

__all__ = ["resolve"]
