from __future__ import annotations

import pytest

from agno_workers.core.tool import ToolContext


@pytest.fixture
def ctx() -> ToolContext:
    return ToolContext(run_id="run-1", step_id="step-1", call_id="call-1", agent="clerk", attempt=1)
