// OpenAI's own client for Node: repeats by itself what is busy, and what it has waited for too long.
import assert from 'node:assert/strict'
import OpenAI from 'openai'

const client = new OpenAI({ maxRetries: 5 })
const asked = { max_tokens: 50, messages: [{ role: 'user', content: 'When was the mill built?' }] }
assert.ok((await client.chat.completions.create({ ...asked, model: 'steady' })).choices[0].message.content)
assert.ok((await client.chat.completions.create({ ...asked, model: 'late' }, { timeout: 3_000 })).id)
console.log('ok')
