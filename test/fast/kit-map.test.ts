import { boundedMap } from '#workflows/kit/bounded-map.ts'
import { describe, expect, test } from 'vitest'

/** A promise with its ends in hand. */
function gate() {
  return Promise.withResolvers<void>()
}

describe('boundedMap', () => {
  test('gives results in the order of the items, however they end', async () => {
    const gates = [gate(), gate(), gate()]
    const mapped = boundedMap(gates, 3, async ({ promise }, index) => {
      await promise
      return index
    })
    for (const { resolve } of gates.toReversed()) resolve()
    expect(await mapped).toEqual([0, 1, 2])
  })

  test('works on no more items at once than it may', async () => {
    let now = 0
    let most = 0
    await boundedMap(Array.from({ length: 20 }), 3, async () => {
      now += 1
      most = Math.max(most, now)
      await Promise.resolve()
      now -= 1
    })
    expect(most).toBe(3)
  })

  test('begins nothing after a failure, and waits for what has begun before it throws', async () => {
    const slow = gate()
    const begun: number[] = []
    const ended: number[] = []
    const mapped = boundedMap([0, 1, 2, 3], 2, async (item) => {
      begun.push(item)
      if (item === 0) throw new Error('first')
      await slow.promise
      ended.push(item)
    })
    let thrown: unknown
    const settled = mapped.catch((error: unknown) => {
      thrown = error
    })
    await Promise.resolve()
    expect(thrown).toBeUndefined()
    slow.resolve()
    await settled
    expect(thrown).toEqual(new Error('first'))
    expect({ begun, ended }).toEqual({ begun: [0, 1], ended: [1] })
  })

  test('of several failures throws that of the earliest item', async () => {
    const late = gate()
    const mapped = boundedMap([0, 1], 2, async (item) => {
      if (item === 0) await late.promise
      else late.resolve()
      throw new Error(`item ${item}`)
    })
    await expect(mapped).rejects.toThrow('item 0')
  })

  test('maps nothing to nothing', async () => {
    expect(await boundedMap([], 4, async () => 1)).toEqual([])
  })
})
