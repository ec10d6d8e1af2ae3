"""Refuse fields that a value does not have, and name the field that is meant, also where the word is one of agno's, old or new."""

from __future__ import annotations

from typing import Any

import msgspec

from agno_workers.core.words import did_you_mean
from agno_workers.errors import InvalidInput

_HISTORY = "history=History(runs=5)"
_PAST = "history=History(search_past_sessions=3)"
_CONTEXT = "context=Context({...})"
_MEMORY = 'memory=Memory(learn="background")'
_AGENTIC = 'memory=Memory(learn="agentic")'
_SUMMARY = "history=History(runs=5, summary=True)"
_DATABASE = "the setting database.url (AGNO_DATABASE_URL) of the process"
_RETRY = "retry=Retry(attempts=3)"
_SUBMIT = "an option of the submit, as in agent.delay(..., {}=...)"
AGNO = {
    "agent_id": "name=...", "id": "name=...", "storage": _DATABASE, "db": _DATABASE,
    "add_history_to_messages": _HISTORY, "add_history_to_context": _HISTORY, "num_history_runs": _HISTORY, "num_history_responses": _HISTORY,
    "num_history_messages": "history=History(tokens=8_000)", "max_tool_calls_from_history": "history=History(tool_results=3)",
    "read_chat_history": "history=History(tools=True)", "read_tool_call_history": "history=History(tools=True)",
    "search_previous_sessions_history": _PAST, "num_history_sessions": _PAST, "search_past_sessions": _PAST, "num_past_sessions_to_search": _PAST,
    "enable_session_summaries": _SUMMARY, "add_session_summary_to_context": _SUMMARY, "session_summary_manager": _SUMMARY,
    "memory_manager": _MEMORY, "enable_user_memories": _MEMORY, "update_memory_on_run": _MEMORY, "enable_agentic_memory": _AGENTIC,
    "add_memories_to_context": "memory=Memory(recall=10)",
    "add_context": _CONTEXT, "add_context_instructions": _CONTEXT, "resolve_context": "context=Context({...}, resolve=True)",
    "dependencies": _CONTEXT, "add_dependencies_to_context": _CONTEXT, "resolve_in_context": "context=Context({...}, resolve=True)",
    "additional_context": _CONTEXT, "add_datetime_to_context": "context=Context(datetime=True)", "add_datetime_to_instructions": "context=Context(datetime=True)",
    "add_state_in_messages": "context=Context(state=True)", "add_session_state_to_context": "context=Context(state=True)",
    "session_state": "ctx.state in a tool, or client.state(\"session\", id)", "enable_agentic_state": "ctx.state in a tool",
    "session_id": _SUBMIT.format("session_id"), "user_id": _SUBMIT.format("user_id"),
    "response_model": "output_schema=...", "extra_data": "metadata={...}", "system_message": "instructions=...", "role": "description=...",
    "tool_call_limit": "limits=Limits(tool_calls=...)", "tool_choice": "settings=ModelSettings(tool_choice=...)",
    "retries": _RETRY, "delay_between_retries": _RETRY, "exponential_backoff": _RETRY,
    "search_knowledge": "knowledge=docs", "add_knowledge_to_context": "knowledge=docs.context()", "add_references": "knowledge=docs.context()",
    "knowledge_filters": "knowledge=docs.tool(filters={...})", "offload_tool_results": "compaction=Compaction(offload_tokens=4_000)",
    "stream": "handle.events()", "stream_events": "handle.events()", "stream_intermediate_steps": "handle.events()",
}  # fmt: skip
"""Fields of agno's Agent, from 1.7 to 3.1, that have another name here."""

AGNO_TEAM = {
    "team_id": "name=...", "model": 'leader="openai:..."', "response_model": "output_schema=...", "system_message": "instructions=...",
    "role": "description=...", "respond_directly": 'mode="route"', "delegate_to_all_members": 'mode="broadcast"',
    "determine_input_for_members": 'mode="broadcast", in which each member gets the request as it is',
    "delegate_task_to_all_members": 'mode="broadcast"', "success_criteria": "mode=supervise(criteria=...)", "expected_output": "instructions=...",
    "max_iterations": "limits=Limits(turns=...)", "tool_call_limit": "limits=Limits(tool_calls=...)",
    "show_members_responses": "handle.record", "store_member_responses": "handle.record",
    "stream_member_events": "handle.events() of the member's run", "enable_agentic_context": "ctx.state_of(\"team\") in a tool",
    "session_state": "ctx.state_of(\"team\") in a tool", "get_member_information_tool": "description=... of each member",
    "add_member_tools_to_context": "description=... of each member", "add_team_history_to_members": "leader=Agent(..., history=History(...))",
    "read_team_history": "leader=Agent(..., history=History(...))", "num_team_history_runs": "leader=Agent(..., history=History(...))",
}  # fmt: skip
"""Fields of agno's Team, from 1.7 to 3.1, that have another name here."""
_OF_ITS_AGENT = "tools knowledge settings history context compaction prices retry metadata"
"""The fields of an agent that are those of a team's leader."""


class Fields(msgspec.StructMeta):
    """The type of values whose constructors name the field that is meant, in place of Python's TypeError."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        """Raise InvalidInput for a field that does not exist."""
        for name in fields:
            if name not in cls.__struct_fields__:
                raise InvalidInput(cls._unknown(name))
        return super().__call__(*args, **fields)

    def _unknown(cls, name: str) -> str:
        if cls.__name__ == "Agent" and (ours := AGNO.get(name)):
            return f"Agent has no field {name!r}, which is a word of agno: use {ours}."
        if ours := getattr(cls, "agno", {}).get(name):
            return f"{cls.__name__} has no field {name!r}, which is a word of agno: use {ours}."
        if cls.__name__ == "Team" and (hint := cls._of_team(name)):
            return hint
        known = did_you_mean(name, cls.__struct_fields__) or f" It has {', '.join(cls.__struct_fields__)}."
        return f"{cls.__name__} has no field {name!r}.{known}"

    def _of_team(cls, name: str) -> str:
        ours = AGNO_TEAM.get(name) or AGNO.get(name)
        field = ours.partition("=")[0] if ours else name
        if field in _OF_ITS_AGENT.split() and field not in cls.__struct_fields__:
            ours = f"leader=Agent(..., {ours or f'{name}=...'})"
        if not ours:
            return ""
        whose = "" if field == name else ", which is a word of agno"
        return f"Team has no field {name!r}{whose}: use {ours}."
