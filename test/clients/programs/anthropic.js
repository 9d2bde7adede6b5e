// Anthropic's own client for Node: whole, streamed, tools, counting, errors, and a stream that is left.
import Anthropic from '@anthropic-ai/sdk'
import assert from 'node:assert/strict'

const { POOR_KEY: poorKey, BUSY_KEY: busyKey } = process.env
const client = new Anthropic()
const messages = [
  { role: 'user', content: '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?' },
]
const asked = { model: 'steady', max_tokens: 200, messages }
const input_schema = { type: 'object', properties: { what: { type: 'string' } }, required: ['what'] }
const tools = [{ name: 'look_up', description: 'Looks a year up.', input_schema }]

const names = []
for await (const { id } of client.models.list()) names.push(id)
assert.ok(names.includes('steady'))

const whole = await client.messages.create(asked)
assert.match(whole.content[0].text, /1711/)
const streamed = await client.messages.stream(asked).finalMessage()
assert.equal(streamed.content[0].text, whole.content[0].text)
assert.equal(streamed.usage.output_tokens, whole.usage.output_tokens)
assert.ok((await client.messages.countTokens({ model: 'steady', messages })).input_tokens > 0)

const called = await client.messages.stream({ ...asked, tools, tool_choice: { type: 'any' } }).finalMessage()
assert.equal(called.stop_reason, 'tool_use')
const use = called.content.find(({ type }) => type === 'tool_use')
assert.equal(use.name, 'look_up')
const result = { type: 'tool_result', tool_use_id: use.id, content: 'The mill was built in 1711.' }
const told = await client.messages.create({
  ...asked,
  messages: [...messages, { role: 'assistant', content: called.content }, { role: 'user', content: [result] }],
})
assert.equal(told.stop_reason, 'end_turn')

async function refusal(work) {
  const error = await work.catch((each) => each)
  assert.ok(error instanceof Anthropic.APIError, String(error))
  return error
}

const again = { maxRetries: 5 }
assert.equal((await refusal(client.messages.create({ ...asked, model: 'none' }, again))).status, 404)
const stranger = client.withOptions({ apiKey: `purser_pk_${'x'.repeat(43)}` })
assert.ok((await refusal(stranger.messages.create(asked, again))) instanceof Anthropic.AuthenticationError)
const poor = await refusal(client.withOptions({ apiKey: poorKey }).messages.create(asked, again))
assert.equal(poor.status, 402)
assert.equal(poor.error.error.type, 'billing_error')
const busy = await refusal(client.withOptions({ apiKey: busyKey }).messages.create(asked, again))
assert.ok(busy instanceof Anthropic.RateLimitError)
assert.ok(Number(busy.headers.get('retry-after')) > 0)

for await (const event of client.messages.stream({ ...asked, model: 'paced' })) {
  if (event.type === 'content_block_delta') break
}
console.log('ok')
