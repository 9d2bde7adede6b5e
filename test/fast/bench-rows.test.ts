import { expect, test } from 'vitest'
import { rowOf } from '../bench/frame.ts'
import { tableOf } from '../bench/table.ts'

const figures = { case: 'c', metric: 'm', ours: [30, 10, 20], baseline: [10, 10, 10] }

test('a row compares neighbours in time, and is judged by the median of their ratios', () => {
  const row = rowOf({ ...figures, target: { bound: 'at least', value: 2 } })
  expect(row).toMatchObject({ ours: 20, baseline: 10, ratio: 2, spread: [1, 3], target: 2, ok: true })
  expect(rowOf({ ...figures, target: { bound: 'at least', value: 2.1 } }).ok).toBe(false)
  expect(rowOf({ ...figures, target: { bound: 'at most', value: 1.9 } }).ok).toBe(false)
})

test('without a baseline the figure itself is judged, and a figure that is missing meets no target', () => {
  const target = { bound: 'at most', value: 20 } as const
  expect(rowOf({ case: 'c', metric: 'm', ours: [30, 10, 20], target })).toMatchObject({ ratio: null, ok: true })
  expect(rowOf({ case: 'c', metric: 'm', ours: [], target }).ok).toBe(false)
})

test('the table says which target was missed', () => {
  const table = tableOf([rowOf(figures), rowOf({ ...figures, target: { bound: 'at least', value: 5 } })])
  expect(table.split('\n')).toHaveLength(3)
  expect(table).toMatch(/≥ 5 {2}MISSED$/)
})
