import { createProvider } from '#providers/create-provider.ts'
import type { AnswerDelta, ProviderResult } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { chatOf, chunkOf, DONE, sendEvents, sendJson, useUpstream } from '../support/upstream.ts'

const MESSAGES = [{ role: 'user', content: 'When was the mill built?' }] as const
const usage = { prompt_tokens: 9, completion_tokens: 12, total_tokens: 21 }
const billed = { ...chunkOf({}), choices: [], usage }

/** A piece of one of several answers. */
function pieceOf(index: number, delta: object, finishReason: string | null = null): object {
  return { ...chunkOf({}), choices: [{ index, delta, finish_reason: finishReason }] }
}

async function askForThree(
  events: readonly unknown[] | object,
  onDelta?: (delta: AnswerDelta) => void,
): Promise<ProviderResult> {
  const upstream = await useUpstream((response) =>
    Array.isArray(events) ? sendEvents(response, events) : sendJson(response, events),
  )
  const provider = createProvider({ name: 'p', kind: 'openai', baseUrl: upstream.url, apiKey: 'k' }, { nowMs: () => 0 })
  const result = await provider.chat(chatOf({ body: { messages: MESSAGES, choices: 3 }, ...(onDelta && { onDelta }) }))
  expect(upstream.requests[0]?.body).toMatchObject({ n: 3 })
  return result
}

test('pieces of several answers, side by side, are put together by their place', async () => {
  const deltas: AnswerDelta[] = []
  const result = await askForThree(
    [
      pieceOf(2, { content: 'C' }),
      pieceOf(0, { content: 'A' }),
      pieceOf(1, { tool_calls: [{ index: 0, id: 'c1', function: { name: 'look', arguments: '{}' } }] }),
      pieceOf(2, { content: 'c' }, 'length'),
      pieceOf(0, {}, 'stop'),
      pieceOf(1, {}, 'tool_calls'),
      billed,
      DONE,
    ],
    (delta) => deltas.push(delta),
  )
  expect(result).toMatchObject({
    outcome: 'answered',
    received: {
      text: 'A',
      finishReason: 'stop',
      others: [
        { text: '', toolCalls: [{ id: 'c1', name: 'look' }], finishReason: 'tool_calls' },
        { text: 'Cc', finishReason: 'length' },
      ],
      usage: { input: 9, output: 12 },
    },
  })
  expect(deltas.map(({ choice }) => choice)).toEqual([2, undefined, 1, 2])
})

test('answers that were not asked for are passed over, whatever number they have', async () => {
  const result = await askForThree([
    pieceOf(0, { content: 'A' }, 'stop'),
    pieceOf(1, { content: 'B' }, 'stop'),
    pieceOf(2, { content: 'C' }, 'stop'),
    pieceOf(3, { content: 'D' }, 'stop'),
    pieceOf(1e9, { content: 'E' }, 'stop'),
    billed,
  ])
  expect(result.received).toMatchObject({ text: 'A', others: [{ text: 'B' }, { text: 'C' }] })
})

test('a stream that ends before each of its answers does is cut, and its running count is no bill', async () => {
  const result = await askForThree([
    pieceOf(0, { content: 'A' }, 'stop'),
    { ...pieceOf(1, { content: 'B' }), usage },
    DONE,
  ])
  expect(result).toMatchObject({ outcome: 'cut_stream', received: { text: 'A', others: [{ finishReason: null }] } })
})

test('fewer answers than were asked for are all when the bill comes behind them, and a cut when it does not', async () => {
  const one = pieceOf(0, { content: 'A' }, 'stop')
  expect(await askForThree([one, billed])).toMatchObject({ outcome: 'answered', received: { text: 'A', others: [] } })
  expect(await askForThree([one])).toMatchObject({ outcome: 'cut_stream' })
})

test('of a body each choice is an answer; one that was filtered spoils none of the others', async () => {
  const choice = (index: number, content: string, reason: string) => ({
    index,
    message: { role: 'assistant', content },
    finish_reason: reason,
  })
  const choices = [choice(1, 'B', 'stop'), choice(0, 'A', 'content_filter'), choice(2, 'C', 'stop')]
  const result = await askForThree({ ...chunkOf({}), choices, usage })
  expect(result).toMatchObject({
    outcome: 'answered',
    received: { text: 'A', finishReason: 'content_filter', others: [{ text: 'B' }, { text: 'C' }] },
  })
  const filtered = choices.map((each) => ({ ...each, finish_reason: 'content_filter' }))
  expect(await askForThree({ ...chunkOf({}), choices: filtered, usage })).toMatchObject({ outcome: 'content_filter' })
})

test('an API that has no number of answers, and which further members it takes, is known before it is asked', () => {
  const extrasOf = (kind: 'openai' | 'anthropic' | 'openrouter', baseUrl = 'http://127.0.0.1:1/v1') =>
    createProvider({ name: 'p', kind, baseUrl, apiKey: 'k' }, { nowMs: () => 0 }).extras
  expect(extrasOf('anthropic')).toMatchObject({ choices: false })
  expect(extrasOf('openrouter').parameters).toContain('top_k')
  expect(extrasOf('openai')).toMatchObject({ choices: true })
  expect(extrasOf('openai').parameters).toContain('frequency_penalty')
  expect(extrasOf('openai').parameters).not.toContain('safety_identifier')
  expect(extrasOf('openai', 'https://api.openai.com/v1').parameters).toContain('safety_identifier')
})
