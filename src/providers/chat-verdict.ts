import { failure } from './failure.ts'
import type { ProviderChatRequest, ProviderResult, Received } from './provider.ts'

/**
 * What a chat's whole answer is worth. An empty text is an answer: its model ended it, it is billed, and asking again
 * would pay a second time for the same. Only where JSON was asked for is nothing less than an answer.
 */
export function judgeChat(received: Received, { body }: Pick<ProviderChatRequest, 'body'>): ProviderResult {
  if (received.finishReason === 'content_filter')
    return failure('content_filter', received.text || 'the provider filtered the answer', { received })
  if (received.toolCalls.some(({ name }) => name === ''))
    return failure('malformed_answer', 'a tool call of the answer names no tool', { received })
  if (body.schema && received.finishReason === 'stop' && received.text.trim() === '')
    return failure('malformed_answer', 'the answer is empty where JSON was asked for', { received })
  return { outcome: 'answered', received }
}
