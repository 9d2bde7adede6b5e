import { expect, test } from 'vitest'
import { readArguments, UsageError } from '../../src/cli/arguments.ts'
import { describeEvent, formatEventLine } from '../../src/cli/event-line.ts'
import { readServerEvents } from '../../src/client/server-events.ts'
import { formatTable, NOTHING, wrapText } from '../../src/cli/text-table.ts'

test('amounts of a column stand with their points below each other', () => {
  const columns = [{ title: 'balance' }, { title: 'spent', align: 'decimal' }] as const
  expect(
    formatTable(columns, [
      ['direct USD', '0.0052992'],
      ['credit USD', '12.000310'],
      ['credit CNY', NOTHING],
    ]),
  ).toEqual([
    'balance          spent', //
    'direct USD   0.0052992',
    'credit USD  12.000310',
    'credit CNY           –',
  ])
})

test('a text is broken at spaces, indented, and keeps its own line breaks', () => {
  expect(wrapText('one two three\n\nfour', { width: 9, indent: '  ' })).toBe('  one two\n  three\n\n  four')
})

test('an unknown option, one without its value, and too many arguments are usage errors in one sentence', () => {
  const read = (...args: readonly string[]) =>
    readArguments(args, { options: { model: { type: 'string' } }, usage: '' })
  expect(() => read('--speed', 'high')).toThrow(new UsageError("Unknown option '--speed'.", ''))
  expect(() => read('--model')).toThrow(UsageError)
  expect(() => read('research')).toThrow(new UsageError('"research" is not expected here.', ''))
  expect(read('--model', 'steady').values).toEqual({ model: 'steady' })
})

test('server-sent events are put together again wherever the network cut them', async () => {
  const bytes = new TextEncoder().encode(
    'retry: 1000\n\nid: 1-2\nevent: run.running\ndata: {"a":"ä"}\n\n: heartbeat\n\ndata: {}\n\n',
  )
  const cut = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte))
      controller.close()
    },
  })
  const data: string[] = []
  for await (const each of readServerEvents(cut)) data.push(each)
  expect(data).toEqual(['{"a":"ä"}', '{}'])
})

test('an event is a line with the call, the route, what came of it and what it cost', () => {
  const event = { id: '1-1', kind: 'attempt.settled', at: '2026-11-01T00:00:00.000Z' }
  const data = { callId: 'c', attempt: 1, route: 'steady', balanceClass: 'direct', currency: 'USD' }
  const lineOf = (more: Readonly<Record<string, unknown>>): string | undefined => {
    const line = describeEvent({ ...event, data: { ...data, ...more } }, 'read/0')
    return line && formatEventLine(line, 1_250)
  }
  const usd = (amount: string) => ({ amount, currency: 'USD' })
  expect(lineOf({ outcome: 'answered', charged: usd('0.001230'), certainty: 'billed' })).toBe(
    '  1.3 s  read/0    steady    answered       0.001230 from direct',
  )
  expect(lineOf({ outcome: 'rate_limited', charged: usd('0.000000'), certainty: null })).toBe(
    '  1.3 s  read/0    steady    rate limited   nothing charged',
  )
  expect(lineOf({ outcome: 'lost', charged: usd('0.002888'), certainty: 'unknown' })).toBe(
    '  1.3 s  read/0    steady    lost           0.002888 from direct (unknown)',
  )
})
