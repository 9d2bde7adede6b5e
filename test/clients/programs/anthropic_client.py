"""Anthropic's own client for Python: whole, streamed, tools, counting, errors."""

import os

import anthropic
from anthropic import Anthropic

client = Anthropic()
QUESTION = [{"role": "user", "content": "<passage id=\"p1\">The mill was built in 1711.</passage> When was the mill built?"}]
TOOLS = [
    {
        "name": "look_up",
        "description": "Looks a year up.",
        "input_schema": {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
    }
]

message = client.messages.create(model="steady", max_tokens=200, messages=QUESTION)
assert "1711" in message.content[0].text, message
assert message.usage.output_tokens > 0

with client.messages.stream(model="steady", max_tokens=200, messages=QUESTION) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text == message.content[0].text, text
assert final.usage.output_tokens == message.usage.output_tokens, final

asked = client.messages.create(
    model="steady", max_tokens=200, messages=QUESTION, tools=TOOLS, tool_choice={"type": "any"}
)
use = next(block for block in asked.content if block.type == "tool_use")
assert use.name == "look_up" and asked.stop_reason == "tool_use", asked
result = {"type": "tool_result", "tool_use_id": use.id, "content": "The mill was built in 1711."}
told = client.messages.create(
    model="steady",
    max_tokens=200,
    tools=TOOLS,
    messages=[*QUESTION, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}],
)
assert told.stop_reason in ("end_turn", "tool_use"), told

assert client.messages.count_tokens(model="steady", messages=QUESTION).input_tokens > 0


def refused(work, kind, status):
    try:
        work()
    except anthropic.APIStatusError as error:
        assert isinstance(error, kind) and error.status_code == status, error
        return error
    raise AssertionError("it was answered")


def ask(asking, model="steady"):
    return lambda: asking.messages.create(model=model, max_tokens=200, messages=QUESTION)


refused(ask(client, "none"), anthropic.NotFoundError, 404)
refused(ask(client.with_options(api_key="purser_pk_" + "x" * 43)), anthropic.AuthenticationError, 401)
refused(ask(client.with_options(api_key=os.environ["POOR_KEY"], max_retries=5)), anthropic.APIStatusError, 402)

busy = client.with_options(api_key=os.environ["BUSY_KEY"], max_retries=5)
error = refused(ask(busy), anthropic.RateLimitError, 429)
assert int(error.response.headers["retry-after"]) > 0, error

with client.messages.stream(
    model="steady", max_tokens=200, messages=QUESTION, tools=TOOLS, tool_choice={"type": "any"}
) as stream:
    assert stream.get_final_message().stop_reason == "tool_use"

with client.messages.stream(model="paced", max_tokens=200, messages=QUESTION) as left:
    next(iter(left.text_stream))
print("ok")
