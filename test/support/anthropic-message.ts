import { createProvider } from '#providers/create-provider.ts'
import type { ProviderChatRequest, ProviderResult } from '#providers/provider.ts'
import { expect } from 'vitest'
import { chatOf, sendJson, sendMessageEvents, useUpstream, type SeenRequest } from './upstream.ts'

interface MessageEvent {
  readonly type: string
  readonly [field: string]: unknown
}
type MessageEvents = readonly MessageEvent[]

export interface AskedMessage {
  readonly result: ProviderResult
  readonly request: SeenRequest | undefined
}

/** What an Anthropic provider makes of an answer, and what it sent for it: one request. */
export async function askForMessage(
  answer: MessageEvents | object,
  change: Partial<ProviderChatRequest> = {},
  settings: object = {},
): Promise<AskedMessage> {
  const upstream = await useUpstream((response) => {
    if (Array.isArray(answer)) sendMessageEvents(response, answer)
    else sendJson(response, answer)
  })
  const configured = { name: 'p', kind: 'anthropic', baseUrl: upstream.url, apiKey: 'secret', ...settings } as const
  const result = await createProvider(configured, { nowMs: () => 0 }).chat(
    chatOf({ upstreamModel: 'claude-haiku-5-5', ...change }),
  )
  expect(upstream.requests).toHaveLength(1)
  return { result, request: upstream.requests[0] }
}

export const usageAtStart = {
  input_tokens: 20,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
  output_tokens: 1,
}

/** The events of a message, as the API documents them. */
export function messageOf(
  blocks: MessageEvents,
  end: object = {},
  usage: object | null = { output_tokens: 12 },
): MessageEvents {
  const message = {
    id: 'msg_1',
    type: 'message',
    role: 'assistant',
    content: [],
    model: 'm',
    stop_reason: null,
    usage: usageAtStart,
  }
  return [
    { type: 'message_start', message },
    { type: 'ping' },
    ...blocks,
    {
      type: 'message_delta',
      delta: { stop_reason: 'end_turn', stop_sequence: null, ...end },
      ...(usage && { usage }),
    },
    { type: 'message_stop' },
  ]
}

export function blockOf(index: number, start: object, deltas: readonly object[]): MessageEvents {
  return [
    { type: 'content_block_start', index, content_block: start },
    ...deltas.map((delta) => ({ type: 'content_block_delta', index, delta })),
    { type: 'content_block_stop', index },
  ]
}

export const textBlock = (index: number, ...pieces: readonly string[]) =>
  blockOf(
    index,
    { type: 'text', text: '' },
    pieces.map((piece) => ({ type: 'text_delta', text: piece })),
  )
