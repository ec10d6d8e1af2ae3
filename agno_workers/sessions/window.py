"""Keep the request of a turn within the context window of its model, so that a run does not fail because its transcript is long.

    turn ── the request is near the window, or the provider refuses it ──▶ the turn waits, a `compact` step is written
    compact ── a model summarizes the oldest messages, see compaction.py ──▶ the turn is executed again

A request that can't be compacted is sent as it is, and a history of the session that is too long is shortened; only then does a refusal end
the run. Without `Compaction(window_tokens=...)`, the window is that of a known model, or is learned from the provider's refusal.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from agno_workers.core.messages import Message, ModelRequest, Reply, StopReason, Usage
from agno_workers.core.step import CompactionOrder
from agno_workers.core.tokens import estimate_message, estimate_messages, estimate_request
from agno_workers.engine.turn import Ask, CompactFirst, Turn
from agno_workers.errors import ModelRejected
from agno_workers.models.windows import refused_window, window_of
from agno_workers.sessions.compaction import cut, first_new, group_start, summary_tokens

MAX_COMPACTIONS = 3
"""Compactions before one turn; each keeps less."""
_MIN_GAIN = 0.1
"""A compaction before the provider has refused anything frees at least this share of the window."""
_MAX_RATIO = 4.0
_KNOWN_S = 600.0
"""A learned window is forgotten after so long: a refusal may come from one server of several, or be about the room for the answer."""


class ContextWindows:
    """The context windows of models, as far as this process knows them: their sizes, and how estimates compare with what providers count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._learned: dict[str, tuple[int, float]] = {}
        """The tokens of a model's window, and the time at which they are forgotten."""
        self._ratios: dict[str, float] = {}

    def ask(self, turn: Turn, ask: Ask) -> tuple[Turn, Reply]:
        """Call the model with a request that fits its window. Raises CompactFirst, and as `ask` does."""
        turn, spent = self._fitted(turn), Usage()
        while True:
            request, refusal, reply = turn.request(), None, None
            try:
                reply = ask(request)
            except ModelRejected as error:
                if error.code != "context_window":
                    raise
                refusal = error
            if reply is not None:
                spent += reply.usage
                if reply.stop is not StopReason.CONTEXT_WINDOW:
                    self._compare(turn, request, reply)
                    return turn, replace(reply, usage=spent)
            room = self._learn(turn, request, refusal)
            if order := ordered(turn, room, forced=True):
                raise CompactFirst(replace(order, used=spent))
            if turn.history:
                turn = dataclasses.replace(turn, history=())
            elif reply is None:
                raise _final(refusal, turn)
            else:
                return turn, replace(reply, usage=spent)

    def _fitted(self, turn: Turn) -> Turn:
        """Return the turn with a history that fits, if the window is known. Raises CompactFirst when the request is near the window."""
        if (room := self._room(turn)) is None:
            return turn
        most = most_tokens(turn, room)
        if estimate_request(turn.request()) <= most:
            return turn
        if turn.history:
            rest = estimate_request(dataclasses.replace(turn, history=()).request())
            turn = dataclasses.replace(turn, history=newest(turn.history, max(most - rest, most // 4)))
            if estimate_request(turn.request()) <= most:
                return turn
        if order := ordered(turn, room):
            raise CompactFirst(order)
        return turn

    def _room(self, turn: Turn) -> int | None:
        """Return the window of a turn's model, in tokens as they are estimated; None: it is not known."""
        window = self._window(turn)
        return window and int(window / self._ratios.get(turn.agent.name, 1.0))

    def _window(self, turn: Turn) -> int | None:
        name = _model_name(turn)
        learned, until = self._learned.get(name, (0, 0.0))
        known = (
            turn.agent.compaction.window_tokens or window_of(name),
            learned if self._clock() < until else 0,
        )
        return min((size for size in known if size), default=None)

    def _compare(self, turn: Turn, request: ModelRequest, reply: Reply) -> None:
        """Keep how many tokens the provider counted for each that was estimated. It never counts as fewer: an estimate may be too high."""
        if self._window(turn):
            ratio = reply.usage.input_tokens / max(1, estimate_request(request))
            self._ratios[turn.agent.name] = min(_MAX_RATIO, max(1.0, ratio))

    def _learn(self, turn: Turn, request: ModelRequest, refusal: ModelRejected | None) -> int:
        """Learn from a refusal, and return the window in estimated tokens, which is less than the request had."""
        name, asked, until = _model_name(turn), estimate_request(request), self._clock() + _KNOWN_S
        if stated := refused_window(str(refusal)):
            self._learned[name] = stated, until
        if window := self._window(turn):
            ratio = max(self._ratios.get(turn.agent.name, 1.0), window / asked)
            self._ratios[turn.agent.name] = min(_MAX_RATIO, ratio)
        else:
            self._learned[name] = int(asked * self._ratios.get(turn.agent.name, 1.0)), until
        if (room := self._room(turn)) is not None and room <= asked:
            return room
        if not stated:  # else it is the room for the answer that is too large, and the next request may be longer than this one
            self._learned[name] = asked, until
        return asked


def _model_name(turn: Turn) -> str:
    model = turn.agent.model
    return model if isinstance(model, str) else model.name


def _final(refusal: ModelRejected | None, turn: Turn) -> ModelRejected:
    """Return the error of a request that is too long, and can't be made shorter."""
    assert refusal is not None
    state = turn.claim.call or {}
    if reason := state.get("declined"):
        why = f"It could not be compacted: {reason}."
    elif times := state.get("compactions"):
        why = f"It has been compacted {times} times before this turn."
    else:
        why = "Nothing in it can be compacted: it is the system text, the tools and the newest messages."
    return ModelRejected(f"{refusal} {why}", **{**refusal.ids, "code": "context_window"})


def most_tokens(turn: Turn, room: int) -> int:
    """Return the most tokens of a request that is made without a compaction: its answer needs room too."""
    answer = min(turn.agent.settings.max_output_tokens or 0, room // 2)
    return int(min(turn.agent.compaction.at * room, room - answer))


def newest(history: Sequence[Message], budget: int) -> tuple[Message, ...]:
    """Return the newest messages that have at most `budget` tokens, from a question on."""
    start = len(history)
    for place in range(len(history) - 1, -1, -1):
        budget -= estimate_message(history[place])
        if budget < 0:
            break
        if history[place].role == "user":
            start = place
    return tuple(history[start:])


def ordered(turn: Turn, room: int, *, forced: bool = False) -> CompactionOrder | None:
    """Return the compaction that a turn needs, for a window of `room` estimated tokens. None: it would free too little, was tried and
    declined, or came often enough. Where the provider has refused the request (`forced`), it keeps less until there is something to summarize.
    """
    claim, options, state = turn.claim, turn.agent.compaction, turn.claim.call or {}
    if "declined" in state:
        return None
    transcript, start = claim.transcript or (), first_new(claim)  # what joins at this turn stays as it is
    overhead = estimate_request(turn.request()) - estimate_messages(transcript)
    free = most_tokens(turn, room) - overhead - estimate_messages(transcript[:1]) - summary_tokens(room)
    newest_group = estimate_messages(transcript[group_start(transcript) :])
    first = state.get("compactions", 0) + 1
    last = MAX_COMPACTIONS if forced else min(first, MAX_COMPACTIONS)
    for number in range(first, last + 1):
        keep = int(max(0, min(options.keep * room, free / 2)) / 3 ** (number - 1))
        if number == MAX_COMPACTIONS:
            keep = 0
        elif newest_group <= free:
            keep = max(keep, newest_group)  # the model has not read it yet
        place = cut(transcript, start, keep)
        freed = estimate_messages(transcript[start:place])
        if place > start and (forced or freed >= _MIN_GAIN * room):
            return CompactionOrder(number, room, keep)
    return None
