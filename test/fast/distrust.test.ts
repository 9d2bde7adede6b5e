import { excessPpm, MAX_DISTRUST_PPM } from '#domain/distrust.ts'
import { ceilDivide } from '#domain/money.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'

test.each([
  [1_000n, 1_000n, 0],
  [1_000n, 999n, 0],
  [1_000n, 1_501n, 501_000],
  [3n, 4n, 333_334],
  [1n, 101n, MAX_DISTRUST_PPM],
  [1n, 10n ** 15n, MAX_DISTRUST_PPM],
  [0n, 1n, MAX_DISTRUST_PPM],
  [0n, 0n, 0],
])('held %s and charged %s is %s parts per million too much', (held, charged, ppm) => {
  expect(excessPpm(held, charged)).toBe(ppm)
})

test('what is above a raised hold is counted from the worst case that was raised', () => {
  expect(excessPpm(2_000n, 2_000n, 1_000_000)).toBe(0)
  expect(excessPpm(2_000n, 3_000n, 1_000_000)).toBe(2_000_000)
  expect(excessPpm(2_000n, 10n ** 15n, 1_000_000)).toBe(MAX_DISTRUST_PPM)
})

test('the same bill fits a hold that is raised by what it was above, up to a hundred times', () => {
  const nano = fc.bigInt({ min: 1n, max: 10n ** 15n })
  fc.assert(
    fc.property(nano, nano, (held, charged) => {
      const raised = ceilDivide(held * (1_000_000n + BigInt(excessPpm(held, charged))), 1_000_000n)
      expect(raised >= (charged < held * 100n ? charged : held * 100n)).toBe(true)
      expect(raised >= held && raised <= held * 100n).toBe(true)
    }),
  )
})
