// The Vercel AI SDK: text, a stream, tools, errors, and a stream that is left.
import { createOpenAI } from '@ai-sdk/openai'
import { APICallError, generateText, jsonSchema, streamText, tool } from 'ai'
import assert from 'node:assert/strict'

const { OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey, POOR_KEY: poorKey, BUSY_KEY: busyKey } = process.env
const openai = createOpenAI({ baseURL, apiKey })
const prompt = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'

for (const model of [openai.chat('steady'), openai.responses('steady')]) {
  const whole = await generateText({ model, prompt, maxOutputTokens: 200, maxRetries: 0 })
  assert.match(whole.text, /1711/)
  assert.ok(whole.usage.totalTokens > 0)

  const stream = streamText({ model, prompt, maxOutputTokens: 200, maxRetries: 0 })
  let text = ''
  for await (const piece of stream.textStream) text += piece
  assert.equal(text, whole.text)
  assert.ok((await stream.usage).totalTokens > 0)

  const parameters = jsonSchema({ type: 'object', properties: { what: { type: 'string' } }, required: ['what'] })
  const tools = { look_up: tool({ description: 'Looks a year up.', inputSchema: parameters }) }
  const asked = await generateText({
    model,
    prompt,
    tools,
    toolChoice: 'required',
    maxOutputTokens: 200,
    maxRetries: 0,
  })
  assert.equal(asked.toolCalls[0]?.toolName, 'look_up')
  const streamed = streamText({ model, prompt, tools, toolChoice: 'required', maxOutputTokens: 200, maxRetries: 0 })
  assert.equal((await streamed.toolCalls)[0]?.toolName, 'look_up')
}

const poor = createOpenAI({ baseURL, apiKey: poorKey }).chat('steady')
const error = await generateText({ model: poor, prompt, maxRetries: 5 }).catch((each) => each)
assert.ok(APICallError.isInstance(error), String(error))
assert.equal(error.statusCode, 402)
assert.equal(error.isRetryable, false)

const busy = createOpenAI({ baseURL, apiKey: busyKey }).chat('steady')
const refused = await generateText({ model: busy, prompt, maxRetries: 0 }).catch((each) => each)
assert.equal(refused.statusCode, 429)
assert.ok(Number(refused.responseHeaders['retry-after']) > 0)

const controller = new AbortController()
const left = streamText({ model: openai.chat('paced'), prompt, abortSignal: controller.signal, maxRetries: 0 })
for await (const piece of left.textStream) {
  assert.ok(piece)
  controller.abort()
  break
}
console.log('ok')
