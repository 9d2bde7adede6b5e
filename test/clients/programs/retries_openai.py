"""OpenAI's own client for Python: repeats by itself what is busy, and what it has waited for too long."""

from openai import OpenAI

client = OpenAI(max_retries=5)
QUESTION = [{"role": "user", "content": "When was the mill built?"}]
whole = client.chat.completions.create(model="steady", max_tokens=50, messages=QUESTION)
assert whole.choices[0].message.content, whole
late = client.with_options(timeout=3).chat.completions.create(model="late", max_tokens=50, messages=QUESTION)
assert late.choices[0].message.content, late
print("ok")
