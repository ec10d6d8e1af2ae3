"""The parts of a model's answer: text, reasoning, tool calls, usage, stop reason."""

from __future__ import annotations

import json
import time

import pytest

from agno_workers.core.messages import (
    Delta,
    Message,
    ModelRequest,
    Reasoning,
    StopReason,
    Text,
    ToolResult,
    ToolSpec,
    Usage,
    user,
)
from agno_workers.core.ports import Model
from agno_workers.models import resolve
from tests.contract.models.conftest import Ask, Watcher
from tests.fakes.provider import USAGE, Provider

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
MUL = ToolSpec("mul", "Multiplies.", {"type": "object", "properties": {"a": {"type": "integer"}}})


def request(text: str, *more: Message, tools: tuple[ToolSpec, ...] = ()) -> ModelRequest:
    return ModelRequest((user(text), *more), tools=tools)


# ---- text and reasoning -----------------------------------------------------------------------------------


def test_text_is_emitted_piece_by_piece_and_returned_whole(any_model: Model, watcher: Watcher) -> None:
    reply = any_model.ask(request("say one two  three"), watcher)
    assert reply.message == Message("assistant", (Text("one two  three"),))
    assert reply.stop is StopReason.END
    assert watcher.text == "one two  three"
    assert len(watcher.deltas) == 3


def test_text_that_is_not_english_survives(any_model: Model, watcher: Watcher) -> None:
    reply = any_model.ask(request("say Grüße 你好 🦊"), watcher)
    assert reply.message.text == watcher.text == "Grüße 你好 🦊"


def test_pieces_come_while_the_answer_is_being_written(model: Model) -> None:
    came: list[float] = []
    model.ask(request("delay=0.5\nsay a b c d e f g h"), lambda _: came.append(time.monotonic()))
    assert came[-1] - came[0] > 0.1


def test_the_model_and_the_response_are_named_as_the_provider_names_them(ask: Ask) -> None:
    reply = ask(request("say hello"))
    assert reply.model in ("gpt-5", "claude-sonnet-5", "llama")
    assert reply.response_id.startswith("answer_")


def test_usage_includes_cached_tokens_in_the_input_at_every_provider(ask: Ask) -> None:
    assert ask(request("say hello")).usage == Usage(
        input_tokens=USAGE["input"],
        output_tokens=USAGE["output"],
        cached_tokens=USAGE["cached"],
        cache_write_tokens=USAGE["cache_write"],
        reasoning_tokens=USAGE["reasoning"],
    )


def test_reasoning_is_emitted_and_kept_apart_from_the_text(any_model: Model, watcher: Watcher) -> None:
    reply = any_model.ask(request("think let me see\nsay hello"), watcher)
    reasoning, text = reply.message.parts
    assert isinstance(reasoning, Reasoning)
    assert reasoning.text == watcher.reasoning == "let me see"
    assert reasoning.provider == any_model.name.partition(":")[0]
    assert text == Text("hello") == Text(watcher.text)


def test_ten_megabytes_take_time_in_proportion_to_their_length(model: Model) -> None:
    def cpu_s(megabytes: int) -> float:
        began = time.process_time()
        reply = model.ask(request(f"fault:big mb={megabytes}"), lambda _: None)
        assert len(reply.message.text) == megabytes * 2**20
        return time.process_time() - began

    cpu_s(1)
    assert cpu_s(10) < 20 * cpu_s(2)


# ---- tool calls -------------------------------------------------------------------------------------------


def test_parallel_tool_calls_come_in_order_and_their_results_go_back(any_model: Model) -> None:
    asked = request('call add {"a": 1}\ncall mul {"a": 2}', tools=(ADD, MUL))
    reply = any_model.ask(asked, lambda _: None)
    assert reply.stop is StopReason.TOOL_CALLS
    assert [(c.name, json.loads(c.arguments)) for c in reply.message.tool_calls] == [
        ("add", {"a": 1}),
        ("mul", {"a": 2}),
    ]

    first, second = reply.message.tool_calls
    results = tuple(Message("tool", (ToolResult(c.id, c.name, c.name + " done"),)) for c in (first, second))
    final = any_model.ask(
        ModelRequest((*asked.messages, reply.message, *results), tools=(ADD, MUL)), lambda _: None
    )
    assert final.message.text == "Results: add done | mul done"


def test_several_rounds_of_calls_each_hear_the_results_of_the_last(any_model: Model) -> None:
    messages: list[Message] = [user('call add {"a": 1}\nthen\ncall add {"a": 2}\nthen\nsay done')]
    seen = []
    while (
        reply := any_model.ask(ModelRequest(tuple(messages), tools=(ADD,)), lambda _: None)
    ).message.tool_calls:
        [call] = reply.message.tool_calls
        seen.append(json.loads(call.arguments)["a"])
        messages += [reply.message, Message("tool", (ToolResult(call.id, call.name, "3"),))]
    assert seen == [1, 2]
    assert reply.message.text == "done"
    ids = [call.id for message in messages for call in message.tool_calls]
    assert len(set(ids)) == len(ids)


def test_a_call_cut_off_by_the_token_limit_is_returned_as_written(ask: Ask) -> None:
    reply = ask(request("fault:half-call", tools=(ADD,)))
    assert reply.stop is StopReason.LENGTH
    assert [call.arguments for call in reply.message.tool_calls] == ['{"a": 1, "b']


def test_a_call_of_a_tool_that_was_not_offered_is_returned_like_any_other(ask: Ask) -> None:
    assert [call.name for call in ask(request("fault:unknown-tool")).message.tool_calls] == ["no_such_tool"]


def test_duplicate_ids_are_made_different_and_always_in_the_same_way(ask: Ask) -> None:
    for _ in range(2):
        reply = ask(request("fault:duplicate-ids"))
        assert [call.id for call in reply.message.tool_calls] == ["same", "same_2"]


def test_calls_without_ids_get_some(ask: Ask) -> None:
    reply = ask(request("fault:no-ids"))
    first, second = (call.id for call in reply.message.tool_calls)
    assert (first, second) == (f"call_{reply.response_id}", f"call_{reply.response_id}_2")


# ---- stop reasons -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "stop"),
    [("length", StopReason.LENGTH), ("refusal", StopReason.REFUSAL), ("filter", StopReason.REFUSAL)],
)
def test_stop_reasons_of_providers_are_mapped_to_ours(ask: Ask, fault: str, stop: StopReason) -> None:
    assert ask(request(f"fault:{fault}")).stop is stop


def test_words_of_a_refusal_are_text(ask: Ask) -> None:
    assert ask(request("fault:refusal")).message.text == "I can't help with that."


def test_anthropic_may_stop_because_its_context_window_is_full(provider: Provider) -> None:
    reply = resolve("anthropic:claude").ask(request("fault:context-stop"), lambda _: None)
    assert (reply.stop, reply.message.text) == (StopReason.CONTEXT_WINDOW, "As far as I")


def test_a_paused_turn_goes_on_with_its_blocks_sent_back_untouched(provider: Provider) -> None:
    model = resolve("anthropic:claude")
    reply = model.ask(request("fault:pause times=1 and-then"), lambda _: None)
    assert reply.stop is StopReason.PAUSED
    model.ask(request("fault:pause times=1 and-then", reply.message), lambda _: None)
    assert provider.requests()[-1]["body"]["messages"][-1]["content"] == [
        {"type": "text", "text": "Searching."},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    ]


# ---- watching ---------------------------------------------------------------------------------------------


class Cancelled(Exception):
    pass


def test_an_emit_that_raises_stops_the_call_at_once_and_goes_up_unchanged(any_model: Model) -> None:
    seen: list[Delta] = []

    def cancel(delta: Delta) -> None:
        seen.append(delta)
        raise Cancelled("by its owner")

    with pytest.raises(Cancelled, match="by its owner"):
        any_model.ask(request("say one two three"), cancel)
    assert len(seen) == 1
    assert any_model.ask(request("say and again"), lambda _: None).message.text == "and again"
