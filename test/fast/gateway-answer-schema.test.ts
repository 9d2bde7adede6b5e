import { openAiChatRequestSchema } from '#contracts/openai-chat.ts'
import { openAiResponseRequestSchema } from '#contracts/openai-responses.ts'
import { toChatBody } from '#src/gateway/openai/chat-request.ts'
import { toResponseBody } from '#src/gateway/openai/responses-request.ts'
import { expect, test } from 'vitest'

const schema = { type: 'object', properties: { year: { type: 'integer' } } }

test('what the schema of an answer is for is told, however it is asked; it is strict when it is asked to be', () => {
  const asked = { name: 'fact', description: 'When it was built.', schema }
  const messages = [{ role: 'user', content: 'When?' }]
  const chat = (format: object) => {
    const response_format = { type: 'json_schema', json_schema: format }
    return toChatBody(openAiChatRequestSchema.parse({ model: 'm', messages, response_format })).schema
  }
  const response = (format: object) => {
    const text = { format: { type: 'json_schema', ...format } }
    return toResponseBody(openAiResponseRequestSchema.parse({ model: 'm', input: 'When?', text })).schema
  }
  for (const read of [chat, response]) {
    expect(read(asked)).toEqual({ ...asked, strict: false })
    expect(read({ name: 'fact', description: null, schema, strict: true })).toEqual({
      name: 'fact',
      schema,
      strict: true,
    })
  }
})
