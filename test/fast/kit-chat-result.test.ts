import { toChatResult } from '#activities/chat.ts'
import { MAX_VALUE_BYTES } from '#contracts/activities.ts'
import { describe, expect, test } from 'vitest'

const nowMs = 1_000_000
const schema = {
  name: 'plan',
  schema: {
    type: 'object',
    properties: { queries: { type: 'array', items: { type: 'string' } } },
    required: ['queries'],
  },
} as const

function answered(text: string, format?: typeof schema) {
  const result = { kind: 'answered', callId: 'c', answerId: 'a', answer: { text, finishReason: 'stop' } } as const
  return toChatResult(result, { schema: format, nowMs })
}

describe('what a workflow sees of a call', () => {
  test('is its text when that is small, and a reference to it in any case', () => {
    expect(answered('yes')).toEqual({ kind: 'answered', callId: 'c', ref: 'a', text: 'yes' })
    expect(answered('é'.repeat(MAX_VALUE_BYTES / 2))).toEqual({ kind: 'answered', callId: 'c', ref: 'a' })
  })

  test('is the object when a schema was asked', () => {
    expect(answered('```json\n{"queries":["x"]}\n```', schema)).toEqual({
      kind: 'answered',
      callId: 'c',
      ref: 'a',
      object: { queries: ['x'] },
    })
  })

  test('is a failure that names what is wrong when the object is not of the schema', () => {
    expect(answered('{"queries":[1]}', schema)).toMatchObject({
      kind: 'failed',
      callId: 'c',
      reason: 'malformed_object',
      detail: expect.stringContaining('queries.0'),
    })
    expect(answered('Here are my queries: x', schema)).toMatchObject({ kind: 'failed', reason: 'malformed_object' })
    const long = JSON.stringify({ queries: ['x'.repeat(MAX_VALUE_BYTES)] })
    expect(answered(long, schema)).toMatchObject({ kind: 'failed', reason: 'malformed_object' })
  })

  test('has amounts as decimal strings', () => {
    const refusal = {
      id: 'h',
      route: 'steady',
      limit: 'direct pocket',
      measure: 'money',
      currency: 'USD',
      needed: 2_350_000n,
      free: 1n,
    } as const
    expect(toChatResult({ kind: 'exhausted', callId: 'c', refusal }, { schema: undefined, nowMs })).toEqual({
      kind: 'exhausted',
      callId: 'c',
      stop: { refusalId: 'h', limit: 'direct pocket', needed: '0.002350', free: '0.000000001', currency: 'USD' },
    })
  })

  test('has what a limit of tokens measures as whole numbers of tokens', () => {
    const refusal = {
      id: 'h',
      route: 'steady',
      limit: 'key limit per day',
      measure: 'tokens',
      currency: 'USD',
      needed: 5_000n,
      free: 12n,
    } as const
    expect(toChatResult({ kind: 'exhausted', callId: 'c', refusal }, { schema: undefined, nowMs })).toMatchObject({
      stop: { limit: 'key limit per day', needed: '5000', free: '12', currency: 'tokens' },
    })
  })

  test('has a wait as a duration, never shorter than a timer can be', () => {
    const wait = (untilMs: number) =>
      toChatResult({ kind: 'waiting', callId: 'c', untilMs }, { schema: undefined, nowMs })
    expect(wait(nowMs + 250.5)).toEqual({ kind: 'waiting', waitMs: 251 })
    expect(wait(nowMs - 10)).toEqual({ kind: 'waiting', waitMs: 1 })
  })
})
