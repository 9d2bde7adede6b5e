import fc from 'fast-check'
import { expect, test } from 'vitest'
import { countTokens, encodeText } from '#sandbox/tokens.ts'

/** What the word-wise count could get wrong: spaces of all kinds, contractions, digits, marks, long runs. */
const scrap = fc.oneof(
  fc.constantFrom(
    ' ',
    '  ',
    '\n',
    ' \n ',
    '\t',
    '\u00a0',
    '\u3000',
    "'s",
    "'LL",
    '1234',
    '-',
    '/',
    '...',
    'é',
    '数据库',
    '🙂',
    '<|endoftext|>',
  ),
  fc.string({ maxLength: 12 }),
  fc.string({ unit: 'grapheme', maxLength: 8 }),
  fc.constantFrom('word', 'Word', 'WORD', 'wOrd', 'a'.repeat(300), ' '.repeat(300), '!'.repeat(300)),
)

test('counting word by word gives what encoding the whole text gives', () => {
  fc.assert(
    fc.property(fc.array(scrap, { maxLength: 40 }), (scraps) => {
      for (const text of [scraps.join(''), scraps.join(' ')]) expect(countTokens(text)).toBe(encodeText(text).length)
    }),
    { numRuns: 400 },
  )
})
