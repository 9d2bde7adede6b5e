import { readEvents } from '#providers/event-stream.ts'
import { expect, test } from 'vitest'
import { readAll } from '../support/sandbox.ts'

async function eventsOf(...pieces: readonly (string | Uint8Array)[]) {
  const encoder = new TextEncoder()
  async function* body() {
    for (const piece of pieces) yield typeof piece === 'string' ? encoder.encode(piece) : piece
  }
  return readAll(readEvents(body()))
}

const data = (text: string) => ({ name: undefined, data: text })
const open = (text: string) => ({ ...data(text), isOpen: true })

test('an event is the data of its lines, up to an empty one', async () => {
  expect(await eventsOf('data: one\n\ndata:two\ndata:  three\n\n')).toEqual([data('one'), data('two\n three')])
  expect(await eventsOf('event: error\ndata: {}\n\ndata: next\n\n')).toEqual([
    { name: 'error', data: '{}' },
    data('next'),
  ])
})

test('comments, ids and events without data are no events', async () => {
  expect(await eventsOf(': still here\n\nid: 7\nretry: 5\n\nevent: ping\n\ndata:\n\ndata\n\ndata: one\n\n\n')).toEqual([
    data('one'),
  ])
})

test('wherever a stream is cut in pieces, its events are the same', async () => {
  const whole = new TextEncoder().encode('event: a\r\ndata: schön 😀\r\n\r\n: x\r\ndata: two\r\n\r\ndata: three')
  const expected = [{ name: 'a', data: 'schön 😀' }, data('two'), open('three')]
  for (let cut = 0; cut <= whole.length; cut += 1) {
    expect(await eventsOf(whole.subarray(0, cut), whole.subarray(cut))).toEqual(expected)
  }
  expect(await eventsOf(...Array.from(whole, (byte) => Uint8Array.of(byte)))).toEqual(expected)
})

test('what is left when a stream ends is an event too, and says so', async () => {
  expect(await eventsOf('data: one')).toEqual([open('one')])
  expect(await eventsOf('data: one\n')).toEqual([open('one')])
  expect(await eventsOf('')).toEqual([])
})

test('a line that has no end is not kept for ever', async () => {
  const piece = 'x'.repeat(8_000_000)
  await expect(eventsOf(...Array.from({ length: 6 }, () => piece))).rejects.toThrow('more than 33554432 characters')
})
