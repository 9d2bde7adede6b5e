import { deriveId, newId } from '#db/ids.ts'
import { expect, test } from 'vitest'

const ANCHOR = '019ac0de-1234-7abc-8def-0123456789ab'

test.each([
  ['019ac0de-1234-8a59-b637-b6cebbbdc948', ['attempt', ANCHOR, '1', 'hold']],
  ['019ac0de-1234-8cda-98ac-afbb4f85dd8d', ['call', 'read/é', '']],
  ['019ac0de-1234-86e8-a8f4-10f54c87deb9', []],
])('what was derived once is derived for ever: %s', (id, parts) => {
  expect(deriveId(ANCHOR, ...parts)).toBe(id)
})

test('the time of a derived id is its anchor’s, and its version 8', () => {
  for (let index = 0; index < 64; index += 1) {
    expect(deriveId(ANCHOR, String(index))).toMatch(/^019ac0de-1234-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  }
})

test('a derived id is written in small letters, however its anchor is', () => {
  expect(deriveId(ANCHOR.toUpperCase(), 'x')).toMatch(/^019ac0de-1234-8[0-9a-f]{3}-/)
})

test('parts that only read the same one after the other are others', () => {
  expect(deriveId(ANCHOR, 'a', 'bc')).not.toBe(deriveId(ANCHOR, 'ab', 'c'))
})

test('a new id begins with its time, and is of version 7', () => {
  expect(newId(0x019a_c0de_1234)).toMatch(/^019ac0de-1234-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
})
