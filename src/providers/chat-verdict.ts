import { failure } from './failure.ts'
import { choicesOf, type ProviderChatRequest, type ProviderResult, type Received } from './provider.ts'

/**
 * What a chat's whole answer is worth. An empty text is an answer: its model ended it, it is billed, and asking again
 * would pay a second time for the same. Only where JSON was asked for is nothing less than an answer. Of several answers one
 * that is worth something is enough.
 */
export function judgeChat(received: Received, { body }: Pick<ProviderChatRequest, 'body'>): ProviderResult {
  const choices = choicesOf(received)
  if (choices.every(({ finishReason }) => finishReason === 'content_filter'))
    return failure('content_filter', received.text || 'the provider filtered the answer', { received })
  if (choices.some(({ toolCalls }) => toolCalls.some(({ name }) => name === '')))
    return failure('malformed_answer', 'a tool call of the answer names no tool', { received })
  if (body.schema && choices.every(({ finishReason, text }) => finishReason === 'stop' && text.trim() === ''))
    return failure('malformed_answer', 'the answer is empty where JSON was asked for', { received })
  return { outcome: 'answered', received }
}
