// LangChain for JavaScript: a message, a stream, tools.
import { ChatOpenAI } from '@langchain/openai'
import assert from 'node:assert/strict'

const { OPENAI_BASE_URL: baseURL } = process.env
const model = new ChatOpenAI({ model: 'steady', maxTokens: 200, maxRetries: 0, configuration: { baseURL } })
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
console.log('ok')
