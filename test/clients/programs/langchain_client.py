"""LangChain for Python: a message, a stream, tools, an object, errors, and a stream that is left."""

import os

import openai
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

QUESTION = "<passage id=\"p1\">The mill was built in 1711.</passage> When was the mill built?"


class Answer(BaseModel):
    answer: str


@tool
def look_up(what: str) -> str:
    """Looks a year up."""
    return "1711"


model = ChatOpenAI(model="steady", max_tokens=200, max_retries=0, stream_usage=True)
whole = model.invoke([HumanMessage(QUESTION)])
assert "1711" in whole.content, whole
assert whole.usage_metadata["total_tokens"] > 0, whole

text, usage = "", None
for chunk in model.stream(QUESTION):
    text += chunk.content
    usage = chunk.usage_metadata or usage
assert text == whole.content and usage is not None, (text, usage)

asked = model.bind_tools([look_up], tool_choice="any").invoke(QUESTION)
assert asked.tool_calls[0]["name"] == "look_up", asked

streamed = None
for chunk in model.bind_tools([look_up], tool_choice="any").stream(QUESTION):
    streamed = chunk if streamed is None else streamed + chunk
assert streamed.tool_calls[0]["name"] == "look_up", streamed

filled = model.with_structured_output(Answer, method="json_schema").invoke(QUESTION)
assert isinstance(filled, Answer), filled


def refused(key, kind, name="steady"):
    asking = ChatOpenAI(model=name, max_tokens=200, max_retries=5, **({"api_key": os.environ[key]} if key else {}))
    try:
        asking.invoke(QUESTION)
    except openai.APIStatusError as error:
        assert isinstance(error, kind), error
        return error
    raise AssertionError("it was answered")


refused(None, openai.NotFoundError, "none")
assert refused("POOR_KEY", openai.APIStatusError).status_code == 402
refused("BUSY_KEY", openai.RateLimitError)

left = ChatOpenAI(model="paced", max_tokens=200, max_retries=0).stream(QUESTION)
next(piece for piece in left if piece.content)
left.close()
print("ok")
