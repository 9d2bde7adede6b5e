import { openAiChatRequestSchema } from '#contracts/openai-chat.ts'
import { toChatBody } from '#src/gateway/openai/chat-request.ts'
import { expect, test } from 'vitest'

test('what a model has refused is part of a later prompt, as a part of its message or beside it', () => {
  const messagesOf = (...messages: readonly object[]) =>
    toChatBody(openAiChatRequestSchema.parse({ model: 'm', messages })).messages
  const part = { type: 'refusal', refusal: 'I cannot.' }
  expect(messagesOf({ role: 'assistant', content: [{ type: 'text', text: 'No.' }, part] })).toEqual([
    { role: 'assistant', content: 'No.\nI cannot.' },
  ])
  expect(messagesOf({ role: 'assistant', content: null, refusal: 'I cannot.' })).toEqual([
    { role: 'assistant', content: 'I cannot.' },
  ])
})
