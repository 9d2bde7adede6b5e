// Anthropic's own client for Node: repeats by itself what is busy, and what it has waited for too long.
import Anthropic from '@anthropic-ai/sdk'
import assert from 'node:assert/strict'

const client = new Anthropic({ maxRetries: 5 })
const asked = { max_tokens: 50, messages: [{ role: 'user', content: 'When was the mill built?' }] }
assert.ok((await client.messages.create({ ...asked, model: 'steady' })).content[0].text)
assert.ok((await client.messages.create({ ...asked, model: 'late' }, { timeout: 3_000 })).id)
console.log('ok')
