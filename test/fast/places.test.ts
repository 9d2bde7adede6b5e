import { createPlaces } from '#calls/places.ts'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'

/** So many rows, each held for a while and then sent for a while; what was seen of them. */
async function seenOf(count: number, times: { readonly holdMs: number; readonly sendMs: number }) {
  const places = createPlaces(4)
  const now = { held: 0, sent: 0 }
  const most = { held: 0, sent: 0 }
  const note = (): void => {
    most.held = Math.max(most.held, now.held)
    most.sent = Math.max(most.sent, now.sent)
  }
  const ended: number[] = []
  const work = (index: number) =>
    places.run(async (inTurn) => {
      await delay(times.holdMs)
      now.held += 1
      note()
      await inTurn(async () => {
        now.held -= 1
        now.sent += 1
        note()
        await delay(times.sendMs)
        now.sent -= 1
      })
      ended.push(index)
    })
  await Promise.all(Array.from({ length: count }, (_, index) => work(index)))
  return { most, ended }
}

test('never more rows are at the provider than there are places, however quickly they are held', async () => {
  const { most, ended } = await seenOf(40, { holdMs: 20, sendMs: 20 })
  expect(most.sent).toBe(4)
  expect(ended).toHaveLength(40)
})

test('where the provider is slow, hardly a row is held before there is a place for it', async () => {
  const { most } = await seenOf(20, { holdMs: 0, sendMs: 60 })
  expect(most.sent).toBe(4)
  expect(most.held).toBeLessThanOrEqual(2)
})

test('a row that is never sent, and one that fails, leave their places to others', async () => {
  const places = createPlaces(1)
  const done: string[] = []
  const rows = [
    places.run(() => Promise.resolve()),
    places.run((inTurn) => inTurn(() => Promise.reject(new Error('away')))),
    places.run((inTurn) => inTurn(async () => void done.push('sent'))),
  ]
  expect((await Promise.allSettled(rows)).map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  expect(done).toEqual(['sent'])
})
