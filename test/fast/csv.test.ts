import { csvLine, csvText } from '#domain/csv.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readCsv } from '../support/csv.ts'

test('whatever a text is, it comes back from one cell, and no spreadsheet takes it for a formula', () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.string({ unit: 'binary' }), fc.stringMatching(/^[=+\-@'",\r\n\t ]{0,6}$/)), {
        minLength: 2,
      }),
      (texts) => {
        const [cells = []] = readCsv(csvLine(texts.map(csvText)))
        expect(cells.map((cell) => cell.replace(/^'/, ''))).toEqual(texts)
        expect(cells.filter((cell) => /^\s*[=+\-@＝＋－＠]/.test(cell))).toEqual([])
      },
    ),
  )
})

test('nothing is an empty cell, and an empty text is a quoted one', () => {
  expect(csvLine([csvText(null), csvText('')])).toBe(',""\r\n')
})
