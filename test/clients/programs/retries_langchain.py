"""LangChain for Python: repeats by itself what is busy, and what it has waited for too long."""

from langchain_openai import ChatOpenAI

whole = ChatOpenAI(model="steady", max_tokens=50, max_retries=5).invoke("When was the mill built?")
assert whole.content, whole
late = ChatOpenAI(model="late", max_tokens=50, max_retries=5, timeout=3).invoke("When was the mill built?")
assert late.content, late
print("ok")
