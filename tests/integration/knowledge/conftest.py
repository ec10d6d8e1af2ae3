"""Agents that use knowledge run on the engine of the engine tests."""

from __future__ import annotations

from tests.integration.engine.conftest import counted_pool, live_streams, scenario

__all__ = ["counted_pool", "live_streams", "scenario"]
