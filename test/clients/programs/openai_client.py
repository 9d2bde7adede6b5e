"""OpenAI's own client for Python: whole, streamed, tools, errors, and a stream that is left."""

import os

import openai
from openai import OpenAI

client = OpenAI()
QUESTION = [{"role": "user", "content": "<passage id=\"p1\">The mill was built in 1711.</passage> When was the mill built?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks a year up.",
            "parameters": {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
        },
    }
]

assert "steady" in [model.id for model in client.models.list()]

whole = client.chat.completions.with_raw_response.create(model="steady", messages=QUESTION, max_tokens=200)
answer = whole.parse()
assert "1711" in answer.choices[0].message.content, answer
assert whole.headers["x-purser-cost"].endswith(" USD"), whole.headers
assert answer.usage.total_tokens > 0

text, usage = "", None
for chunk in client.chat.completions.create(model="steady", messages=QUESTION, max_tokens=200, stream=True):
    usage = chunk.usage or usage
    if chunk.choices:
        text += chunk.choices[0].delta.content or ""
assert text == answer.choices[0].message.content, text
assert usage is not None and usage.total_tokens == answer.usage.total_tokens

asked = client.chat.completions.create(
    model="steady", messages=QUESTION, max_tokens=200, tools=TOOLS, tool_choice="required"
)
call = asked.choices[0].message.tool_calls[0]
assert call.function.name == "look_up", asked
told = client.chat.completions.create(
    model="steady",
    max_tokens=200,
    messages=[
        *QUESTION,
        asked.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "The mill was built in 1711."},
    ],
)
assert told.choices[0].finish_reason == "stop", told

response = client.responses.create(model="steady", input="When was the mill built?", max_output_tokens=100)
assert response.status == "completed" and response.output_text != "", response


def refused(work, kind):
    try:
        work()
    except openai.APIStatusError as error:
        assert isinstance(error, kind), error
        return error
    raise AssertionError("it was answered")


refused(lambda: client.chat.completions.create(model="none", messages=QUESTION), openai.NotFoundError)
refused(lambda: client.chat.completions.create(model="steady", messages=[]), openai.BadRequestError)
refused(lambda: client.with_options(api_key="purser_pk_" + "x" * 43).models.list(), openai.AuthenticationError)
poor = client.with_options(api_key=os.environ["POOR_KEY"], max_retries=5)
error = refused(lambda: poor.chat.completions.create(model="steady", messages=QUESTION), openai.APIStatusError)
assert error.status_code == 402 and error.code == "insufficient_quota", error

busy = client.with_options(api_key=os.environ["BUSY_KEY"], max_retries=5)
error = refused(lambda: busy.chat.completions.create(model="steady", messages=QUESTION), openai.RateLimitError)
assert int(error.response.headers["retry-after"]) > 0, error

called = False
with client.chat.completions.stream(model="steady", messages=QUESTION, max_tokens=200, tools=TOOLS, tool_choice="required") as stream:
    for event in stream:
        called = called or event.type == "tool_calls.function.arguments.done"
assert called

with client.responses.stream(model="steady", input="When was the mill built?", max_output_tokens=100) as stream:
    for event in stream:
        pass
    assert stream.get_final_response().output_text == response.output_text

stream = client.chat.completions.create(model="paced", messages=QUESTION, max_tokens=200, stream=True)
next(iter(stream))
stream.close()
print("ok")
