"""Anthropic's own client for Python: repeats by itself what is busy, and what it has waited for too long."""

from anthropic import Anthropic

client = Anthropic(max_retries=5)
QUESTION = [{"role": "user", "content": "When was the mill built?"}]
whole = client.messages.create(model="steady", max_tokens=50, messages=QUESTION)
assert whole.content[0].text, whole
late = client.with_options(timeout=3).messages.create(model="late", max_tokens=50, messages=QUESTION)
assert late.content[0].text, late
print("ok")
