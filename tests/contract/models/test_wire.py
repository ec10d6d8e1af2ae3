"""Odd answers of servers, each a file of bytes in `wire/`, and the reply or the error that they must become.

The next odd answer is a file (`chat-`, `responses-` or `anthropic-` names the dialect, `.sse`, `.json` or `.html` the media type)
and a line of CASES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec
import pytest

from agno_workers.core.messages import ModelRequest, Reasoning, Reply, StopReason, user
from agno_workers.database.pool import to_json
from agno_workers.errors import ModelError, ModelRejected, ModelUnavailable
from agno_workers.models import resolve
from agno_workers.models.reply import EMPTY, NAMELESS, TRUNCATED
from tests.fakes.provider import WIRE, Provider

MODELS = {"chat": "local:m", "responses": "openai:m", "anthropic": "anthropic:m"}
HELLO = "Hello there."


@dataclass(frozen=True)
class Said:
    """A reply. A call is written `name arguments`, with its id before it unless that is `call_1`, `call_2` or `toolu_1`."""

    text: str
    calls: tuple[str, ...]
    thought: str
    stop: StopReason
    used: tuple[int, int]
    """Input and output tokens."""


@dataclass(frozen=True)
class Failed:
    error: type[ModelError]
    words: str


def said(
    text: str = "",
    *,
    calls: list[str] | None = None,
    thought: str = "",
    stop: str = "",
    used: tuple[int, int] = (0, 0),
) -> Said:
    end = StopReason(stop or ("tool_calls" if calls else "end"))
    return Said(text, tuple(calls or ()), thought, end, used)


def unavailable(words: str) -> Failed:
    return Failed(ModelUnavailable, words)


def rejected(words: str) -> Failed:
    return Failed(ModelRejected, words)


CASES = {
    "anthropic-all-index-0.sse": said(HELLO, calls=['f {"a": 1}'], used=(5, 3)),
    "anthropic-block-null.sse": said(HELLO, used=(5, 3)),
    "anthropic-block-text-null.sse": said(HELLO, used=(5, 3)),
    "anthropic-block-with-text.sse": said(HELLO, used=(5, 3)),
    "anthropic-block-without-text.sse": said(HELLO, used=(5, 3)),
    "anthropic-call-begun-twice.sse": said(calls=['f {"a": 1}'], used=(5, 3)),
    "anthropic-call-input-at-start.sse": said(calls=['f {"a": 1}'], used=(5, 3)),
    "anthropic-call-input-object-delta.sse": said(calls=['f {"a": 1}'], used=(5, 3)),
    "anthropic-call-input-text.sse": said(calls=['f {"a": 1}'], used=(5, 3)),
    "anthropic-call-integer-id.sse": said(calls=['7 f {"a": 1}'], used=(5, 3)),
    "anthropic-call-lost-arguments.sse": said(calls=["f "], used=(5, 3)),
    "anthropic-call-lost-name.sse": unavailable(NAMELESS),
    "anthropic-call-no-arguments.sse": said(calls=["now {}"], used=(5, 3)),
    "anthropic-call-without-id.sse": said(calls=['call_msg_1 f {"a": 1}'], used=(5, 3)),
    "anthropic-delta-without-start.sse": said(HELLO, used=(5, 3)),
    "anthropic-end-context-window.sse": said(HELLO, stop="context_window", used=(5, 3)),
    "anthropic-end-cut-off.sse": unavailable(TRUNCATED),
    "anthropic-end-max-tokens.sse": said(HELLO, stop="length", used=(5, 3)),
    "anthropic-end-missing.sse": unavailable(TRUNCATED),
    "anthropic-end-refusal.sse": said(HELLO, stop="refusal", used=(5, 3)),
    "anthropic-end-unknown.sse": unavailable("with the reason 'error', which is not the end"),
    "anthropic-end-without-text.sse": unavailable(EMPTY),
    "anthropic-error-event.sse": unavailable("broke off with 'overloaded_error': Overloaded."),
    "anthropic-error-final.sse": rejected(
        "longer than the context window of anthropic:m: prompt is too long"
    ),
    "anthropic-error-message-only.sse": unavailable("broke off with '429': Too many tokens, please wait."),
    "anthropic-error-typeless.sse": unavailable("broke off with 'internal_error': Engine died."),
    "anthropic-json-error.json": unavailable("broke off with 'api_error': Internal server error."),
    "anthropic-json-text.json": said(HELLO),
    "anthropic-json.json": said(HELLO, calls=['f {"a": 1}'], used=(5, 3)),
    "anthropic-message-null.sse": said(HELLO, used=(0, 3)),
    "anthropic-null-keepalive.sse": said(HELLO, used=(5, 3)),
    "anthropic-page.html": unavailable("'<html>502</html>'."),
    "anthropic-plain.sse": said(HELLO, used=(5, 3)),
    "anthropic-reason-not-repeated.sse": said(calls=['f {"a": 1}'], used=(5, 3)),
    "anthropic-start-without-index.sse": said(HELLO, calls=['f {"a": 1}'], used=(5, 3)),
    "anthropic-thinking-into-text-block.sse": said(HELLO, thought="hm", used=(5, 3)),
    "anthropic-thinking-without-fields.sse": said(HELLO, thought="hm", used=(5, 3)),
    "anthropic-unknown-events-and-blocks.sse": said(HELLO, used=(5, 3)),
    "anthropic-usage-in-delta.sse": said(HELLO, used=(5, 3)),
    "anthropic-usage-missing.sse": said(HELLO),
    "anthropic-usage-null.sse": said(HELLO),
    "anthropic-usage-odd.sse": said(HELLO, used=(5, 3)),
    "anthropic-without-indexes.sse": said(HELLO, calls=['f {"a": 1}'], used=(5, 3)),
    "anthropic-without-message-stop.sse": said(HELLO, used=(5, 3)),
    "chat-azure-filter-results.sse": said(HELLO),
    "chat-bom.sse": said(HELLO, used=(5, 3)),
    "chat-calls-all-index-0.sse": said(calls=['f {"a": 1}', 'g {"a": 2}']),
    "chat-calls-and-text.sse": said(HELLO, calls=['f {"a": 1}']),
    "chat-calls-arguments-list.sse": said(calls=["f [1]"]),
    "chat-calls-arguments-object.sse": said(calls=['f {"a": 1}']),
    "chat-calls-arguments-repeated.sse": said(calls=['f {"a": 1}']),
    "chat-calls-arguments-so-far.sse": said(calls=['f {"a": 1}']),
    "chat-calls-cut-off.sse": said(calls=['f {"a": 1}'], stop="length"),
    "chat-calls-empty-ids-and-names.sse": said(calls=['f {"a": 1}']),
    "chat-calls-empty-object-first.sse": said(calls=['f {"a": 1}']),
    "chat-calls-empty-piece.sse": said(calls=['f {"a": 1}']),
    "chat-calls-finished-by-stop.sse": said(calls=['f {"a": 1}']),
    "chat-calls-gemini.sse": said(calls=['f {"a":1}', 'f {"a":2}'], used=(5, 3)),
    "chat-calls-glued.sse": said(calls=['f {"a": 1}', 'call_chatcmpl-1 f {"a": 2}']),
    "chat-calls-header-without-index.sse": said(calls=['f {"a": 1}']),
    "chat-calls-id-in-each-piece.sse": said(calls=['f {"a": 1}', 'g {"a": 2}']),
    "chat-calls-id-null-as-text.sse": said(calls=['f {"a": 1}']),
    "chat-calls-in-both-fields.sse": said(calls=['f {"a": 1}']),
    "chat-calls-index-0-in-pieces.sse": said(calls=['f {"a": 1}', 'g {"a": 2}']),
    "chat-calls-index-0-no-ids.sse": said(
        calls=['call_chatcmpl-1 f {"a": 1}', 'call_chatcmpl-1_2 g {"a": 2}']
    ),
    "chat-calls-index-0-same-tool-no-ids.sse": said(
        calls=['call_chatcmpl-1 f {"a": 1}', 'call_chatcmpl-1_2 f {"a": 2}']
    ),
    "chat-calls-integer-id.sse": said(calls=['7 f {"a": 1}']),
    "chat-calls-interleaved.sse": said(calls=['f {"a": 1}', 'g {"a": 2}']),
    "chat-calls-legacy-function.sse": said(calls=['call_chatcmpl-1 f {"a": 1}']),
    "chat-calls-lost-arguments.sse": said(calls=["f "]),
    "chat-calls-lost-name.sse": unavailable(NAMELESS),
    "chat-calls-name-in-each-piece.sse": said(calls=['call_chatcmpl-1 f {"a": 1}']),
    "chat-calls-name-null-as-text.sse": said(calls=['f {"a": 1}']),
    "chat-calls-nameless-after-whole-object.sse": said(
        calls=['call_chatcmpl-1 f {"a": 1}', 'call_chatcmpl-1_2 f {"a": 2}']
    ),
    "chat-calls-new-id-and-name-each-piece.sse": said(calls=['x1 f {"a": 1}']),
    "chat-calls-new-id-each-piece.sse": said(calls=['x1 f {"a": 1}', 'y1 g {"a": 2}']),
    "chat-calls-new-index-each-piece.sse": said(calls=['f {"a": 1}']),
    "chat-calls-new-index-named-each-piece.sse": said(calls=['f {"a": 1}']),
    "chat-calls-no-arguments.sse": said(calls=["now {}"]),
    "chat-calls-null-ids-and-names.sse": said(calls=['f {"a": 1}']),
    "chat-calls-odd-types.sse": said(calls=['call_chatcmpl-1 f {"a": 1}']),
    "chat-calls-same-id.sse": said(calls=['same f {"a": 1}', 'same_2 f {"a": 2}']),
    "chat-calls-single-object.sse": said(calls=['f {"a": 1}']),
    "chat-calls-without-function-object.sse": said(calls=['f {"a": 1}']),
    "chat-calls-without-index-in-pieces.sse": said(calls=['f {"a": 1}', 'g {"a": 2}']),
    "chat-calls-without-index-or-id.sse": said(
        calls=['call_chatcmpl-1 f {"a": 1}', 'call_chatcmpl-1_2 g {"a": 2}']
    ),
    "chat-calls-without-index.sse": said(calls=['f {"a": 1}', 'g {"a": 2}']),
    "chat-choices-missing.sse": said(HELLO, used=(5, 3)),
    "chat-choices-null.sse": said(HELLO, used=(5, 3)),
    "chat-choices-object.sse": said(HELLO),
    "chat-content-number.sse": said(text="42.5"),
    "chat-content-object.sse": said(HELLO),
    "chat-content-parts.sse": said(HELLO, thought="hm"),
    "chat-cr-only.sse": said(HELLO, used=(5, 3)),
    "chat-crlf-without-space.sse": said(HELLO, used=(5, 3)),
    "chat-deep-content.sse": unavailable("can't be read (RecursionError"),
    "chat-deep.sse": unavailable("can't be read (RecursionError"),
    "chat-emoji-cut-in-two.sse": said(text="fox 🦊"),
    "chat-empty-data-and-comments.sse": said(HELLO),
    "chat-empty.sse": unavailable(TRUNCATED),
    "chat-end-abort.sse": unavailable("with the reason 'abort', which is not the end"),
    "chat-end-content-filter.sse": said(HELLO, stop="refusal"),
    "chat-end-context-window.sse": said(HELLO, stop="context_window"),
    "chat-end-cut-off.sse": unavailable(TRUNCATED),
    "chat-end-empty-reasons.sse": said(HELLO),
    "chat-end-end-turn.sse": said(HELLO),
    "chat-end-eos.sse": said(HELLO),
    "chat-end-error.sse": unavailable("with the reason 'error', which is not the end"),
    "chat-end-insufficient-system-resource.sse": unavailable(
        "with the reason 'insufficient_system_resource', which is not the end"
    ),
    "chat-end-length.sse": said(HELLO, stop="length"),
    "chat-end-malformed-call.sse": unavailable(
        "with the reason 'function_call_filter: MALFORMED_FUNCTION_CALL', which is not the end"
    ),
    "chat-end-missing-with-calls.sse": unavailable(TRUNCATED),
    "chat-end-missing.sse": unavailable(TRUNCATED),
    "chat-end-network-error.sse": unavailable("with the reason 'network_error', which is not the end"),
    "chat-end-null-as-text.sse": said(HELLO),
    "chat-end-number.sse": unavailable("with the reason '7', which is not the end"),
    "chat-end-sensitive.sse": unavailable("with the reason 'sensitive', which is not the end"),
    "chat-end-tool-calls-without-calls.sse": said(HELLO),
    "chat-end-unknown.sse": unavailable("with the reason 'unknown', which is not the end"),
    "chat-end-upper-case.sse": said(HELLO),
    "chat-end-without-text.sse": unavailable(EMPTY),
    "chat-error-after-text.sse": unavailable("broke off with '502': Provider disconnected."),
    "chat-error-context.sse": rejected("longer than the context window of local:m: the request exceeds"),
    "chat-error-empty-choices.sse": unavailable("broke off with '429': Worker limit reached."),
    "chat-error-in-choice.sse": unavailable("broke off with '503': Upstream is down."),
    "chat-error-not-json.sse": unavailable("'upstream timed out'."),
    "chat-error-null.sse": said(HELLO),
    "chat-error-object.sse": rejected(
        "rejected the request (400): max_tokens must be at least 1. Correct the request."
    ),
    "chat-error-plain-json.sse": unavailable("broke off with 'InternalServerError': Engine died."),
    "chat-error-tool-use-failed.sse": unavailable(
        "broke off with 'tool_use_failed': Failed to call a function."
    ),
    "chat-half-a-surrogate-and-nul.sse": said(text="a�b�c"),
    "chat-huge-numbers.sse": said(HELLO),
    "chat-invalid-utf8.sse": said(text="caf�"),
    "chat-json-blank-lines-first.json": said(HELLO, used=(5, 3)),
    "chat-json-calls.json": said(calls=['7 f {"a": 1}', '8 g {"a": 2}'], used=(5, 3)),
    "chat-json-error-base-resp.json": unavailable("broke off with an error: rate limit."),
    "chat-json-error-detail.json": unavailable("broke off with an error: The queue is full."),
    "chat-json-error-list.json": rejected(
        'rejected the request (400): Unknown name "strict". Correct the request.'
    ),
    "chat-json-error-message.json": unavailable("broke off with an error: Busy, try later."),
    "chat-json-error-status.json": rejected(
        "rejected the request (404): No such model. Check the model's name and the base URL."
    ),
    "chat-json-error-text.json": unavailable("broke off with an error: model 'm' is loading."),
    "chat-json-error.json": unavailable("broke off with 'server_error': The model is overloaded."),
    "chat-json-lines.json": said(HELLO),
    "chat-json-string.json": unavailable("(TypeError: not an object): '\"upstream connect error\"'."),
    "chat-json-with-done.json": said(HELLO, used=(5, 3)),
    "chat-json.json": said(HELLO, used=(5, 3)),
    "chat-list-of-chunks.sse": said(HELLO),
    "chat-nan-logprobs.sse": said(HELLO),
    "chat-no-last-blank-line.sse": said(HELLO),
    "chat-null-fields.sse": said(HELLO),
    "chat-null-keepalive.sse": said(HELLO),
    "chat-one-newline-between-events.sse": said(HELLO, used=(5, 3)),
    "chat-only-done.sse": unavailable(TRUNCATED),
    "chat-page.html": unavailable("'<html>\\n<head><title>502 Bad Gateway</title></head>\\n</html>'."),
    "chat-plain.sse": said(HELLO, used=(5, 3)),
    "chat-pretty-printed-events.sse": said(HELLO),
    "chat-reasoning-details.sse": said(HELLO, thought="hm"),
    "chat-reasoning-twice.sse": said(HELLO, thought="hm"),
    "chat-success-in-words.sse": said(HELLO),
    "chat-two-choices.sse": said(HELLO),
    "chat-usage-floats.sse": said(HELLO, used=(5, 3)),
    "chat-usage-impossible.sse": said(HELLO),
    "chat-usage-list.sse": said(HELLO),
    "chat-usage-nonsense.sse": said(HELLO),
    "chat-usage-strings.sse": said(HELLO, used=(5, 3)),
    "chat-whole-message-as-event.sse": said(HELLO, thought="hm", used=(5, 3)),
    "chat-whole-message-at-the-end.sse": said(HELLO, used=(5, 3)),
    "chat-without-done.sse": said(HELLO, used=(5, 3)),
    "responses-all-index-0.sse": said(HELLO, calls=['f {"a": 1}'], used=(5, 3)),
    "responses-call-begun-twice.sse": said(calls=['f {"a": 1}']),
    "responses-call-done-without-arguments.sse": said(calls=['f {"a": 1}'], used=(5, 3)),
    "responses-call-done-without-name.sse": said(calls=['f {"a": 1}'], used=(5, 3)),
    "responses-call-lost-arguments.sse": said(calls=["f "], used=(5, 3)),
    "responses-call-lost-name.sse": unavailable(NAMELESS),
    "responses-call-only-at-the-end.sse": said(HELLO, calls=['f {"a": 1}'], used=(5, 3)),
    "responses-completed-without-output.sse": said(HELLO),
    "responses-delta-without-item.sse": said(HELLO, used=(5, 3)),
    "responses-end-completed-but-failed.sse": unavailable("with the reason 'failed', which is not the end"),
    "responses-end-content-filter.sse": said(HELLO, stop="refusal"),
    "responses-end-incomplete-without-reason.sse": unavailable(
        "with the reason 'incomplete', which is not the end"
    ),
    "responses-end-max-output-tokens.sse": said(HELLO, stop="length"),
    "responses-end-missing.sse": unavailable(TRUNCATED),
    "responses-end-unknown-reason.sse": unavailable("with the reason 'engine_error', which is not the end"),
    "responses-end-without-text.sse": unavailable(EMPTY),
    "responses-error-event-nested.sse": rejected(
        "rejected the request (invalid_prompt): Bad prompt. Correct the request."
    ),
    "responses-error-event.sse": unavailable("broke off with 'rate_limit_exceeded': Slow down."),
    "responses-error-failed-wordless.sse": unavailable("broke off with 'failed': no explanation."),
    "responses-error-failed.sse": unavailable("broke off with 'server_error': Engine died."),
    "responses-error-prefixed.sse": unavailable("broke off with an error: Engine died."),
    "responses-error-typeless.sse": unavailable("broke off with '504': Gateway timeout."),
    "responses-gap-in-indexes.sse": said(HELLO, used=(5, 3)),
    "responses-ids-odd.sse": said(HELLO, used=(5, 3)),
    "responses-items-begun-only.sse": said(HELLO, calls=['f {"a": 1}'], used=(5, 3)),
    "responses-json-error.json": unavailable("broke off with 'server_error': Overloaded."),
    "responses-json-in-progress.json": unavailable("with the reason 'in_progress', which is not the end"),
    "responses-json.json": said(HELLO, calls=['f {"a": 1}'], used=(5, 3)),
    "responses-last-token-as-output.sse": said(HELLO, used=(5, 3)),
    "responses-odd-calls.sse": said(calls=['7 f {"a": 1}'], used=(5, 3)),
    "responses-odd-items.sse": said(HELLO, thought="hm", used=(5, 3)),
    "responses-output-only-at-the-end.sse": said(HELLO, used=(5, 3)),
    "responses-page.html": unavailable("'<!DOCTYPE html><title>Sign in</title>'."),
    "responses-plain.sse": said(HELLO, used=(5, 3)),
    "responses-reasoning-text.sse": said(HELLO, thought="hm", used=(5, 3)),
    "responses-refusal.sse": said(text="I can't help.", stop="refusal", used=(5, 3)),
    "responses-unknown-events.sse": said(HELLO, used=(5, 3)),
    "responses-usage-null.sse": said(HELLO),
    "responses-usage-odd.sse": said(HELLO, used=(5, 0)),
    "responses-without-indexes-or-ids.sse": said(HELLO, used=(5, 3)),
    "responses-without-indexes.sse": said(HELLO, calls=['f {"a": 1}'], used=(5, 3)),
}


@pytest.mark.parametrize("file", CASES)
def test_odd_answer_is_read_or_refused_in_words(file: str, provider: Provider) -> None:
    request = ModelRequest((user(f"fault:wire file={file}"),))
    model = resolve(MODELS[file.partition("-")[0]])
    expected = CASES[file]
    if isinstance(expected, Failed):
        with pytest.raises(expected.error, match=re.escape(expected.words)) as caught:
            model.ask(request, lambda _: None)
        assert type(caught.value) is expected.error
        return
    reply = model.ask(request, lambda _: None)
    assert shown(reply) == expected
    assert msgspec.json.decode(to_json(reply), type=Reply) == reply


def test_each_odd_answer_has_a_line() -> None:
    assert {path.name for path in WIRE.iterdir()} == set(CASES)


def shown(reply: Reply) -> Said:
    calls = tuple(
        f"{call.name} {call.arguments}"
        if re.fullmatch(r"(call|toolu)_\d", call.id)
        else f"{call.id} {call.name} {call.arguments}"
        for call in reply.message.tool_calls
    )
    thought = "".join(part.text for part in reply.message.parts if isinstance(part, Reasoning))
    used = (reply.usage.input_tokens, reply.usage.output_tokens)
    return Said(reply.message.text, calls, thought, reply.stop, used)
