// OpenAI's own client for Node: whole, streamed, tools, responses, embeddings, errors, and streams that are left.
import assert from 'node:assert/strict'
import OpenAI from 'openai'

const { POOR_KEY: poorKey, BUSY_KEY: busyKey } = process.env
const client = new OpenAI()
const messages = [
  { role: 'user', content: '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?' },
]
const asked = { model: 'steady', messages, max_tokens: 200 }
const parameters = { type: 'object', properties: { what: { type: 'string' } }, required: ['what'] }
const tools = [{ type: 'function', function: { name: 'look_up', description: 'Looks a year up.', parameters } }]

const names = []
for await (const { id } of client.models.list()) names.push(id)
assert.ok(names.includes('steady'))

const { data: whole, response } = await client.chat.completions.create(asked).withResponse()
assert.match(whole.choices[0].message.content, /1711/)
assert.match(response.headers.get('x-purser-cost'), / USD$/)

let text = ''
let usage
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  text += chunk.choices[0]?.delta.content ?? ''
  usage = chunk.usage ?? usage
}
assert.equal(text, whole.choices[0].message.content)
assert.equal(usage.total_tokens, whole.usage.total_tokens)

const stream = client.chat.completions.stream({ ...asked, tools, tool_choice: 'required' })
const called = await stream.finalMessage()
const [call] = called.tool_calls
assert.equal(call.function.name, 'look_up')
assert.equal(typeof JSON.parse(call.function.arguments).what, 'string')
const told = await client.chat.completions.create({
  ...asked,
  messages: [...messages, called, { role: 'tool', tool_call_id: call.id, content: 'The mill was built in 1711.' }],
})
assert.equal(told.choices[0].finish_reason, 'stop')

const asResponse = { model: 'steady', input: messages, max_output_tokens: 200 }
const given = await client.responses.create(asResponse)
assert.equal(given.status, 'completed')
const heard = await client.responses.stream(asResponse).finalResponse()
assert.equal(heard.output_text, given.output_text)

async function refusal(work) {
  const error = await work.catch((each) => each)
  assert.ok(error instanceof OpenAI.APIError, String(error))
  return error
}

const again = { maxRetries: 5 }
const unknown = await refusal(client.chat.completions.create({ ...asked, model: 'none' }, again))
assert.ok(unknown instanceof OpenAI.NotFoundError)
const empty = await refusal(client.chat.completions.create({ ...asked, messages: [] }, again))
assert.ok(empty instanceof OpenAI.BadRequestError)
const stranger = client.withOptions({ apiKey: `purser_pk_${'x'.repeat(43)}` })
assert.ok((await refusal(stranger.models.list())) instanceof OpenAI.AuthenticationError)
const poor = await refusal(client.withOptions({ apiKey: poorKey }).chat.completions.create(asked, again))
assert.equal(poor.status, 402)
assert.equal(poor.code, 'insufficient_quota')
const busy = await refusal(client.withOptions({ apiKey: busyKey }).chat.completions.create(asked, again))
assert.ok(busy instanceof OpenAI.RateLimitError)
assert.ok(Number(busy.headers.get('retry-after')) > 0)

const left = await client.chat.completions.create({ ...asked, model: 'paced', stream: true })
for await (const { choices } of left) if (choices[0]?.delta.content) break
console.log('ok')
