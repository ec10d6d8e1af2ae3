"""Requests: each provider gets the same request in its own format."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from agno_workers.core.agent import History
from agno_workers.core.messages import (
    AnyPart,
    Audio,
    File,
    Image,
    Message,
    ModelRequest,
    ModelSettings,
    OutputSpec,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    ToolSpec,
    user,
)
from agno_workers.core.ports import Model
from agno_workers.errors import ModelRejected
from agno_workers.models import resolve
from agno_workers.sessions.compose import Exchange, PastRun, compose
from tests.contract.models.conftest import Ask
from tests.fakes.provider import Provider

Sent = Callable[[], dict[str, Any]]

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
    "required": ["city"],
}
CLOSED = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CALLED = (
    user("Weather?"),
    Message("assistant", (Text("Let me look."), ToolCall("call.1", "weather", '{"city": "Ulm"}'))),
    Message("tool", (ToolResult("call.1", "weather", "no such city", is_error=True),)),
)


def answered(name: str, request: ModelRequest, sent: Sent) -> dict[str, Any]:
    """Return the body that the provider got from this model."""
    resolve(name).ask(request, lambda _: None)
    return sent()


def without(body: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in keys}


# ---- the transcript ---------------------------------------------------------------------------------------


def test_openai_gets_a_transcript_as_items(provider: Provider, sent: Sent) -> None:
    assert answered("openai:gpt-5", ModelRequest(CALLED, system="Be brief."), sent) == {
        "model": "gpt-5",
        "instructions": "Be brief.",
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Let me look."}],
            },
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Ulm"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "Error: no such city"},
        ],
    }


@pytest.mark.parametrize("name", ["openai-chat:gpt-5", "local:llama"])
def test_chat_gets_a_transcript_as_messages(name: str, provider: Provider, sent: Sent) -> None:
    function = {"name": "weather", "arguments": '{"city": "Ulm"}'}
    assert answered(name, ModelRequest(CALLED, system="Be brief."), sent) == {
        "model": name.partition(":")[2],
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "Error: no such city"},
        ],
    }


def test_anthropic_gets_a_transcript_as_turns_of_blocks(provider: Provider, sent: Sent) -> None:
    messages = (Message("system", (Text("And kind."),)), *CALLED, user("Well?"))
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "no such city", "is_error": True}
    assert answered("anthropic:claude", ModelRequest(messages, system="Be brief."), sent) == {
        "model": "claude",
        "system": "Be brief.\n\nAnd kind.",
        "stream": True,
        "max_tokens": 16384,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Ulm"}},
                ],
            },
            {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]},
        ],
    }


@pytest.mark.parametrize("said", ["", " \n"])
def test_anthropic_gets_a_sentence_for_an_error_without_a_message(
    said: str, provider: Provider, sent: Sent
) -> None:
    called = (*CALLED[:2], Message("tool", (ToolResult("call.1", "weather", said, is_error=True),)))
    body = answered("anthropic:claude", ModelRequest(called), sent)
    (result,) = body["messages"][-1]["content"]
    assert result["content"] == "The call failed without a message."


def test_invented_names_of_tools_go_back_as_names(ask: Ask, sent: Sent) -> None:
    call = ToolCall("call_1", "web search!" + "x" * 100, "{}")
    messages = (
        user("x"),
        Message("assistant", (call,)),
        Message("tool", (ToolResult("call_1", call.name, "?"),)),
    )
    ask(ModelRequest(messages))
    assert f"'web_search_{'x' * 53}'" in str(sent())


def test_broken_arguments_go_back_as_valid_json(ask: Ask, sent: Sent) -> None:
    broken = Message("assistant", (ToolCall("call_1", "add", '{"a": 1, "b'),))
    ask(ModelRequest((user("x"), broken, Message("tool", (ToolResult("call_1", "add", "?"),)))))
    assert "invalid_arguments" in str(sent())


# ---- the history ------------------------------------------------------------------------------------------


def earlier() -> tuple[Message, ...]:
    """Return a history with all that it can hold: a lead, an interrupted call, a left-out result, two questions in a row."""
    at = datetime(2026, 11, 27, tzinfo=UTC)
    calls = Message("assistant", (ToolCall("call_a", "weather", "{}"), ToolCall("call_b", "weather", "{}")))
    found = Message("tool", (ToolResult("call_b", "weather", "rain " * 100),))
    runs = [
        PastRun("r1", at, (user("Weather?"), calls, found), "cancelled", "interrupted"),
        PastRun("r2", at, (user("Well?"), Message("assistant", (Reasoning("hm"), Text(" "))))),
        PastRun("r3", at, (user("Thanks."), Message("assistant", (Text("You are welcome."),)))),
    ]
    exchange = Exchange("old", "r0", "Where do I live?", "In Ulm.", at)
    return compose(runs, History(runs=2, tool_results=0), "They met.", [exchange], is_whole=False)


def test_history_is_sent_as_each_provider_wants_it(model: Model, provider: Provider, sent: Sent) -> None:
    body = answered(model.name, ModelRequest((*earlier(), user("And now?"))), sent)
    entries = body.get("input") or body["messages"]
    assert "from_history" not in json.dumps(body)
    assert entries[0]["role"] == "user"
    assert "They met." in json.dumps(entries[0])
    assert "And now?" in json.dumps(entries[-1])
    if model.name.startswith("anthropic"):
        assert [entry["role"] for entry in entries] == ["user", "assistant"] * (len(entries) // 2) + ["user"]
        blocks = [
            [(block["type"], block.get("id") or block.get("tool_use_id")) for block in entry["content"]]
            for entry in entries
        ]
        place = next(place for place, each in enumerate(blocks) if ("tool_use", "call_a") in each)
        assert blocks[place] == [("tool_use", "call_a"), ("tool_use", "call_b")]
        assert blocks[place + 1] == [("tool_result", "call_a"), ("tool_result", "call_b")]
    elif "input" in body:
        kinds = [(entry["type"], entry.get("call_id")) for entry in entries if entry["type"] != "message"]
        assert kinds == [
            ("function_call", "call_a"), ("function_call", "call_b"), ("function_call_output", "call_a"), ("function_call_output", "call_b"),
        ]  # fmt: skip
    else:
        place = next(place for place, entry in enumerate(entries) if entry.get("tool_calls"))
        assert [entry["tool_call_id"] for entry in entries[place + 1 : place + 3]] == ["call_a", "call_b"]
        assert all(entry["content"] or entry.get("tool_calls") for entry in entries)
        assert all(one["role"] != "user" or two["role"] != "user" for one, two in pairwise(entries))


@pytest.mark.parametrize("name", ["openai-chat:gpt-5", "local:llama"])
def test_neighbours_of_the_user_are_one_message_in_chat(name: str, provider: Provider, sent: Sent) -> None:
    two = answered(name, ModelRequest((user("One."), user("Two."))), sent)["messages"]
    assert two == [{"role": "user", "content": "One.\n\nTwo."}]
    (seen,) = answered(name, ModelRequest((user("One."), user("Look: ", PICTURE))), sent)["messages"]
    assert [part["type"] for part in seen["content"]] == ["text", "text", "image_url"]


# ---- reasoning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        (
            "openai:gpt-5",
            [
                {
                    "id": "rs_answer",
                    "type": "reasoning",
                    "summary": [{"type": "summary_text", "text": "hm"}],
                    "encrypted_content": "enc-thought",
                }
            ],
        ),
        (
            "anthropic:claude",
            [
                {"type": "thinking", "thinking": "hm", "signature": "sig-thought"},
                {"type": "redacted_thinking", "data": "enc-redacted"},
            ],
        ),
    ],
)
def test_reasoning_goes_back_to_its_provider_untouched_and_to_no_other(
    name: str, blocks: list[dict[str, Any]], provider: Provider, sent: Sent
) -> None:
    asked = user("think hm\nredact\nsay hello")
    reply = resolve(name).ask(ModelRequest((asked,)), lambda _: None)
    request = ModelRequest((asked, reply.message, user("Go on.")))

    body = answered(name, request, sent)
    items = body["input"] if "input" in body else body["messages"][1]["content"]
    back = [item for item in items if item["type"] in ("reasoning", "thinking", "redacted_thinking")]
    assert [{**item, "id": "rs_answer"} if "id" in item else item for item in back] == blocks

    for other in {"openai:gpt-5", "openai-chat:gpt-5", "anthropic:claude", "local:llama"} - {name}:
        text = str(answered(other, request, sent))
        assert "'hm'" not in text
        assert "enc-" not in text
        assert "sig-" not in text


def test_reasoning_without_a_result_is_not_sent_to_openai(provider: Provider, sent: Sent) -> None:
    thought = Reasoning(
        "hm", "openai", {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "e"}
    )
    body = answered(
        "openai:gpt-5", ModelRequest((user("x"), Message("assistant", (thought,)), user("y"))), sent
    )
    assert [item["type"] for item in body["input"]] == ["message", "message"]


def test_openai_models_that_do_not_reason_are_not_asked_for_reasoning(provider: Provider, sent: Sent) -> None:
    assert "include" not in answered("openai:gpt-4.1", ModelRequest((user("x"),)), sent)


# ---- tools and output -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
def test_openai_closes_the_schemas_of_strict_tools_only(strict: bool, provider: Provider, sent: Sent) -> None:
    request = ModelRequest((user("x"),), tools=(ToolSpec("weather", "Tells it.", SCHEMA, strict),))
    function = {
        "name": "weather",
        "description": "Tells it.",
        "parameters": CLOSED if strict else SCHEMA,
        "strict": strict,
    }
    assert answered("openai:gpt-5", request, sent)["tools"] == [{"type": "function", **function}]
    assert answered("local:llama", request, sent)["tools"] == [{"type": "function", "function": function}]


@pytest.mark.parametrize("strict", [True, False])
def test_anthropic_closes_the_schemas_of_strict_tools_only(
    strict: bool, provider: Provider, sent: Sent
) -> None:
    request = ModelRequest((user("x"),), tools=(ToolSpec("weather", "Tells it.", SCHEMA, strict),))
    [tool] = answered("anthropic:claude", request, sent)["tools"]
    assert tool.get("strict", False) is strict
    assert tool["input_schema"].get("additionalProperties", True) is not strict
    assert strict or tool == {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}


def test_output_schema_is_sent_in_each_providers_format(provider: Provider, sent: Sent) -> None:
    request = ModelRequest((user('say {"city": "Ulm"}'),), output=OutputSpec("place", SCHEMA))
    shape = {"name": "place", "schema": CLOSED, "strict": True}
    assert answered("openai:gpt-5", request, sent)["text"] == {"format": {"type": "json_schema", **shape}}
    chat = {"type": "json_schema", "json_schema": shape}
    assert answered("openai-chat:gpt-5", request, sent)["response_format"] == chat
    assert answered("local:llama", request, sent)["response_format"] == chat
    anthropic = answered("anthropic:claude", request, sent)["output_config"]["format"]
    assert anthropic["type"] == "json_schema"
    assert anthropic["schema"]["additionalProperties"] is False
    assert anthropic["schema"]["required"] == ["city"]


def test_an_output_with_free_keys_is_asked_for_without_strict_mode(provider: Provider, sent: Sent) -> None:
    free = {"type": "object", "additionalProperties": {"type": "string"}}
    request = ModelRequest((user("x"),), output=OutputSpec("words", free))
    wanted = {"type": "json_schema", "name": "words", "schema": free, "strict": False}
    assert answered("openai:gpt-5", request, sent)["text"]["format"] == wanted


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"any": {}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}},
         "$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}},
    ],
    ids=["free keys", "any value", "recursive"],
)  # fmt: skip
def test_schema_that_anthropic_does_not_take_is_part_of_the_system_text(
    schema: dict[str, Any], provider: Provider, sent: Sent
) -> None:
    tool = ToolSpec("weather", "Tells it.", schema, strict=True)
    request = ModelRequest((user("x"),), system="Be kind.", tools=(tool,), output=OutputSpec("words", schema))
    body = answered("anthropic:claude", request, sent)
    assert "format" not in body.get("output_config", {})
    assert body["system"].startswith("Be kind.\n\nAnswer with JSON that fits this schema")
    assert json.dumps(schema) in body["system"]
    assert body["tools"] == [{"name": "weather", "description": "Tells it.", "input_schema": schema}]


def test_strict_tool_with_free_keys_is_sent_as_not_strict(provider: Provider, sent: Sent) -> None:
    free = {"type": "object", "properties": {"options": {"type": "object"}}}
    tool = ToolSpec("weather", "Tells it.", free, strict=True)
    [sent_tool] = answered("openai:gpt-5", ModelRequest((user("x"),), tools=(tool,)), sent)["tools"]
    assert (sent_tool["strict"], sent_tool["parameters"]) == (False, free)


# ---- settings ---------------------------------------------------------------------------------------------

SETTINGS = ModelSettings(
    temperature=0.5,
    top_p=0.9,
    max_output_tokens=100,
    reasoning_effort="minimal",
    thinking_budget_tokens=2000,
    tool_choice="required",
    parallel_tool_calls=False,
    extra={"metadata": {"user_id": "u1"}},
)
SHARED = {"temperature": 0.5, "top_p": 0.9, "metadata": {"user_id": "u1"}}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "openai:gpt-5",
            {
                "max_output_tokens": 100,
                "reasoning": {"effort": "minimal"},
                "tool_choice": "required",
                "parallel_tool_calls": False,
            },
        ),
        (
            "openai-chat:gpt-5",
            {
                "max_completion_tokens": 100,
                "reasoning_effort": "minimal",
                "tool_choice": "required",
                "parallel_tool_calls": False,
            },
        ),
        (
            "local:llama",
            {
                "max_tokens": 100,
                "reasoning_effort": "minimal",
                "tool_choice": "required",
                "parallel_tool_calls": False,
            },
        ),
        (
            "anthropic:claude",
            {
                "max_tokens": 100,
                "output_config": {"effort": "low"},
                "thinking": {"type": "enabled", "budget_tokens": 2000},
                "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            },
        ),
    ],
)
def test_settings_are_sent_in_the_providers_format(
    name: str, wanted: dict[str, Any], provider: Provider, sent: Sent
) -> None:
    request = ModelRequest((user("x"),), tools=(ToolSpec("t", "", {"type": "object"}),), settings=SETTINGS)
    body = answered(name, request, sent)
    always = ("model", "messages", "input", "stream", "stream_options", "tools", "store", "include")
    assert without(body, *always) == SHARED | wanted


def test_unset_settings_are_not_sent(ask: Ask, sent: Sent) -> None:
    ask(ModelRequest((user("x"),)))
    always = {"model", "messages", "input", "stream", "stream_options", "store", "include", "max_tokens"}
    assert set(sent()) <= always


# ---- images, audio, files ---------------------------------------------------------------------------------

DATA = base64.b64encode(b"Some bytes.").decode()
PICTURE, LINKED = Image(data=DATA), Image(url="https://example.org/a.png")
SOUND = Audio(data=DATA)
PAPER, WEB_PAPER = File(data=DATA, name="a.pdf"), File(url="https://example.org/a.pdf")
NOTE = File(data=DATA, name="a.txt", media_type="text/plain")


@pytest.mark.parametrize(
    ("name", "part", "wanted"),
    [
        (
            "openai:gpt-5",
            PICTURE,
            {"type": "input_image", "image_url": f"data:image/png;base64,{DATA}", "detail": "auto"},
        ),
        ("openai:gpt-5", LINKED, {"type": "input_image", "image_url": LINKED.url, "detail": "auto"}),
        (
            "openai:gpt-5",
            PAPER,
            {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{DATA}"},
        ),
        ("openai:gpt-5", WEB_PAPER, {"type": "input_file", "file_url": WEB_PAPER.url}),
        (
            "local:llama",
            PICTURE,
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
        ),
        ("openai-chat:gpt-5", SOUND, {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}),
        (
            "openai-chat:gpt-5",
            PAPER,
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{DATA}"},
            },
        ),
        (
            "anthropic:claude",
            PICTURE,
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
        ),
        ("anthropic:claude", LINKED, {"type": "image", "source": {"type": "url", "url": LINKED.url}}),
        (
            "anthropic:claude",
            PAPER,
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": DATA},
                "title": "a.pdf",
            },
        ),
        (
            "anthropic:claude",
            NOTE,
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "Some bytes."},
                "title": "a.txt",
            },
        ),
    ],
)
def test_supported_parts_are_sent(
    name: str, part: AnyPart, wanted: dict[str, Any], provider: Provider, sent: Sent
) -> None:
    body = answered(name, ModelRequest((user("Look: ", part),)), sent)
    assert (body.get("input") or body.get("messages") or [])[0]["content"][1] == wanted


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("openai:gpt-5", SOUND),
        ("openai-chat:gpt-5", WEB_PAPER),
        ("local:llama", Audio(url="https://example.org/a.wav")),
        ("anthropic:claude", SOUND),
        ("anthropic:claude", File(data=DATA, media_type="application/zip")),
    ],
)
def test_unsupported_parts_are_rejected_before_anything_is_sent(
    name: str, part: AnyPart, provider: Provider
) -> None:
    with pytest.raises(ModelRejected, match=f"{name} does not take {type(part).__name__.lower()} parts"):
        resolve(name).ask(ModelRequest((user("Look: ", part),)), lambda _: None)
    assert provider.requests() == []


# ---- headers ----------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_nothing_about_this_machine(model: Model, provider: Provider) -> None:
    model.ask(ModelRequest((user("x"),)), lambda _: None)
    headers = {name.lower(): value for name, value in provider.requests()[-1]["headers"]}
    assert not [name for name in headers if "stainless" in name or "trace" in name]
    assert headers["user-agent"].split("/")[0] in ("OpenAI", "Anthropic")
    key = {"openai": "sk-fake-openai", "anthropic": "sk-fake-anthropic", "local": "none"}
    assert key[model.name.partition(":")[0].removesuffix("-chat")] in headers["authorization"]


@pytest.mark.parametrize("name", ["openai-chat:gpt-5", "anthropic:claude"])
def test_headers_are_those_that_the_sdk_sends(name: str, provider: Provider) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Grüße"}], "stream": True}
    if name.startswith("anthropic"):
        anthropic.Anthropic(http_client=httpx2.Client()).messages.create(**body, max_tokens=9)
    else:
        openai.OpenAI(http_client=httpx2.Client()).chat.completions.create(**body)
    resolve(name).ask(ModelRequest((user("Grüße"),)), lambda _: None)
    theirs, ours = ({key.lower(): value for key, value in each["headers"]} for each in provider.requests())
    differ = {"content-length", "accept-encoding", "connection"}
    assert {key: value for key, value in ours.items() if key not in differ} == {
        key: value for key, value in theirs.items() if key not in differ and not key.startswith("x-stainless")
    }
