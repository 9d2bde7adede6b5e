import { createTokenCounter } from '#calls/token-counter.ts'
import { tokensOfText } from '#calls/token-text.ts'
import { promptBounds } from '#calls/prompt-size.ts'
import fc from 'fast-check'
import { encode as encodeCl100k } from 'gpt-tokenizer/encoding/cl100k_base'
import { encode as encodeO200k } from 'gpt-tokenizer/encoding/o200k_base'
import { randomBytes } from 'node:crypto'
import { expect, onTestFinished, test } from 'vitest'

const encoders = { o200k_base: encodeO200k, cl100k_base: encodeCl100k } as const
const PLAIN = { disallowedSpecial: new Set<string>() }

const real = (tokenizer: keyof typeof encoders, text: string) => encoders[tokenizer](text, PLAIN).length

/** As patient as a busy machine needs it, unless patience is what is tried. */
function useCounter(patienceMs = 60_000) {
  const counter = createTokenCounter(patienceMs)
  onTestFinished(() => counter.stop())
  return counter
}

test('a text is counted as its model counts it', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('o200k_base', 'cl100k_base'),
      fc.string({ unit: 'grapheme', maxLength: 400 }),
      (tokenizer, text) => {
        expect(tokensOfText(tokenizer, text)).toBeGreaterThanOrEqual(real(tokenizer, text))
      },
    ),
  )
  const prose = 'The harbour of Quellim was dredged in 1847, <|endoftext|> said Mira Tandel.'
  expect(tokensOfText('o200k_base', prose)).toBe(real('o200k_base', prose))
})

test.each([
  ['Chinese without a space', '港口在一八四七年由米拉疏浚，'.repeat(400)],
  ['base64', Buffer.from('The harbour of Quellim was dredged. '.repeat(300)).toString('base64')],
  ['spaces', ' '.repeat(5_000)],
  ['one letter', 'a'.repeat(20_000)],
  ['digits and marks', '1234567890!?'.repeat(600)],
])('an unbroken run of %s is counted quickly, and never too low', (_, text) => {
  const counted = tokensOfText('o200k_base', text)
  // What is compared with takes its time: a piece of it is enough.
  const piece = text.slice(0, 3_000)
  expect(tokensOfText('o200k_base', piece)).toBeGreaterThanOrEqual(real('o200k_base', piece))
  expect(counted).toBeLessThanOrEqual(Buffer.byteLength(text))
  expect(counted).toBeGreaterThan(0)
})

test('long and short texts are counted in the order they were given, the long ones beside the event loop', async () => {
  const counter = useCounter()
  const long = Array.from({ length: 8_000 }, (_, index) => `word${index % 97}`).join(' ')
  const other = `${long} and more`
  const expected = [real('o200k_base', long), real('o200k_base', 'short'), real('o200k_base', other)]
  let turns = 0
  const timer = setInterval(() => (turns += 1), 1)
  const counted = await counter.count('o200k_base', [long, 'short', other])
  clearInterval(timer)
  expect(counted).toEqual(expected)
  expect(turns).toBeGreaterThan(0)
  expect(await counter.count('o200k_base', [other, long])).toEqual([expected[2], expected[0]])
})

test('who waits when the counter stops is told so', async () => {
  const counter = createTokenCounter()
  const waiting = counter.count('o200k_base', ['word '.repeat(100_000)])
  await counter.stop()
  await expect(waiting).rejects.toThrow('the token counter was stopped')
})

test('many texts of which none is long are counted beside the event loop too', async () => {
  const counter = useCounter()
  const texts = Array.from({ length: 200 }, (_, index) => `word ${index} `.repeat(400))
  let turns = 0
  const timer = setInterval(() => (turns += 1), 1)
  const counted = await counter.count('o200k_base', texts)
  clearInterval(timer)
  expect(turns).toBeGreaterThan(0)
  expect(counted).toEqual(texts.map((text) => real('o200k_base', text)))
})

test('nobody waits for longer than his patience behind a text that takes its time', async () => {
  const counter = useCounter(50)
  const endless = randomBytes(1_500_000).toString('base64')
  const own = 'word '.repeat(2_000)
  const waiting = [counter.count('o200k_base', [endless]), counter.count('o200k_base', [own])]
  for (const each of waiting) await expect(each).rejects.toThrow('counting takes too long')
  const route = { tokenizer: 'o200k_base', imageTokens: 0, contextTokens: 1_000_000 } as const
  const body = { messages: [{ role: 'user', content: own }], maxTokens: 1 } as const
  expect(await promptBounds(counter, body)(route)).toMatchObject({ by: 'bytes' })
})
