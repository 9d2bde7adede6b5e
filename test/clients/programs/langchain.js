// LangChain for JavaScript: a message, a stream, tools, errors, and a stream that is left.
import { ChatOpenAI } from '@langchain/openai'
import assert from 'node:assert/strict'

const { OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: ownKey, POOR_KEY: poorKey, BUSY_KEY: busyKey } = process.env
const modelOf = ({ model = 'steady', apiKey = ownKey, maxRetries = 0 }) =>
  new ChatOpenAI({ model, apiKey, maxTokens: 200, maxRetries, configuration: { baseURL } })
const model = modelOf({})
const prompt = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'

const whole = await model.invoke(prompt)
assert.match(whole.content, /1711/)
assert.ok(whole.usage_metadata.total_tokens > 0)

let text = ''
for await (const piece of await model.stream(prompt)) text += piece.text
assert.equal(text, whole.content)

const parameters = { type: 'object', properties: { what: { type: 'string' } }, required: ['what'] }
const look = { type: 'function', function: { name: 'look_up', description: 'Looks a year up.', parameters } }
const asked = await model.bindTools([look], { tool_choice: 'required' }).invoke(prompt)
assert.equal(asked.tool_calls[0].name, 'look_up')
let streamed
for await (const piece of await model.bindTools([look], { tool_choice: 'required' }).stream(prompt)) {
  streamed = streamed ? streamed.concat(piece) : piece
}
assert.equal(streamed.tool_calls[0].name, 'look_up')

const statusOf = (kind) =>
  modelOf({ maxRetries: 5, ...kind })
    .invoke(prompt)
    .then(
      () => 200,
      ({ status }) => status,
    )
assert.equal(await statusOf({ model: 'none' }), 404)
assert.equal(await statusOf({ apiKey: poorKey }), 402)
assert.equal(await statusOf({ apiKey: busyKey, maxRetries: 0 }), 429)

const controller = new AbortController()
const left = await modelOf({ model: 'paced' }).stream(prompt, { signal: controller.signal })
await assert.rejects(async () => {
  for await (const piece of left) if (piece.text) controller.abort()
})
console.log('ok')
