"""A Celery call of `agno.run` as a request."""

from __future__ import annotations

import pytest

from agno_workers.broker.submit import request_from_call
from agno_workers.core.request import OPTIONS, SUBMIT_OPTIONS
from agno_workers.core.run import Canvas
from agno_workers.errors import InvalidInput


@pytest.mark.parametrize("option", sorted(SUBMIT_OPTIONS - OPTIONS))
def test_option_of_the_message_is_refused_as_an_argument(option: str) -> None:
    """Otherwise the message's own option would replace it in silence: a run with an `eta` would start at once."""
    with pytest.raises(InvalidInput, match=f"{option} is an option of the message"):
        request_from_call(["hi"], {"agent": "echo", option: None}, canvas=Canvas(), kinds={}, queue="agents")
