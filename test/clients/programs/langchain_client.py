"""LangChain for Python: a chain, a stream, tools, an object, embeddings are its own affair."""

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

filled = model.with_structured_output(Answer, method="json_schema").invoke(QUESTION)
assert isinstance(filled, Answer), filled
print("ok")
