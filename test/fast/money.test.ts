import { ceilDivide, formatNano, MAX_NANO, parseDecimal } from '#domain/money.ts'
import { chargeOf, worstCaseOf, type Prices } from '#domain/pricing.ts'
import { inputTokenBound, utf8Length } from '#domain/token-bound.ts'
import fc from 'fast-check'
import { encode } from 'gpt-tokenizer/encoding/o200k_base'
import { expect, test } from 'vitest'

const nano = fc.bigInt({ min: 0n, max: MAX_NANO })
const tokens = fc.integer({ min: 0, max: 2_000_000 })
const price = fc.bigInt({ min: 0n, max: 1_000_000_000_000n })
const prices: fc.Arbitrary<Prices> = fc.record({
  inputNanoPerMillion: price,
  cachedInputNanoPerMillion: price,
  outputNanoPerMillion: price,
  perCallNano: fc.bigInt({ min: 0n, max: 1_000_000_000n }),
})

test('what is written can be read back, to the last nano', () => {
  fc.assert(
    fc.property(nano, (each) => {
      expect(parseDecimal(formatNano(each))).toEqual({ ok: true, nano: each })
    }),
  )
})

test.each([
  ['0.002350', 2_350_000n],
  ['1', 1_000_000_000n],
  ['0.000000001', 1n],
  ['1000000', MAX_NANO],
])('%s is %d nano', (text, expected) => {
  expect(parseDecimal(text)).toEqual({ ok: true, nano: expected })
})

test.each([
  ['0.0000000001', 'too_precise'],
  ['1.0000000000', 'too_precise'],
  ['1000000.000000001', 'too_large'],
  ...['', '-1', '+1', '1e3', '.5', '1.', '01', '1,5', ' 1', '0x10', 'NaN', '1_000', '١'].map((text) => [
    text,
    'malformed',
  ]),
])('%j is refused as %s', (text, reason) => {
  expect(parseDecimal(text)).toEqual({ ok: false, reason })
})

test('a division rounds up, never by more than one', () => {
  fc.assert(
    fc.property(nano, fc.bigInt({ min: 1n, max: MAX_NANO }), (numerator, denominator) => {
      const result = ceilDivide(numerator, denominator)
      expect(result * denominator).toBeGreaterThanOrEqual(numerator)
      expect((result - 1n) * denominator).toBeLessThan(numerator)
    }),
  )
})

test('a charge is one ceil over its components: between their exact sum and that plus one nano', () => {
  fc.assert(
    fc.property(prices, tokens, tokens, tokens, (each, input, cached, output) => {
      const cachedInput = Math.min(input, cached)
      const exact =
        BigInt(input - cachedInput) * each.inputNanoPerMillion +
        BigInt(cachedInput) * each.cachedInputNanoPerMillion +
        BigInt(output) * each.outputNanoPerMillion
      const charge = (chargeOf(each, { input, cachedInput, output }) - each.perCallNano) * 1_000_000n
      expect(charge).toBeGreaterThanOrEqual(exact)
      expect(charge - exact).toBeLessThan(1_000_000n)
    }),
  )
})

test('no usage within the bounds costs more than the worst case', () => {
  fc.assert(
    fc.property(
      prices,
      tokens,
      tokens,
      fc.nat(100),
      fc.nat(100),
      fc.nat(100),
      (each, inputTokens, maxOutputTokens, a, b, c) => {
        const input = Math.floor((inputTokens * a) / 100)
        const usage = {
          input,
          cachedInput: Math.floor((input * b) / 100),
          output: Math.floor((maxOutputTokens * c) / 100),
        }
        expect(chargeOf(each, usage)).toBeLessThanOrEqual(worstCaseOf(each, { inputTokens, maxOutputTokens }))
      },
    ),
  )
})

test('the length in bytes is what UTF-8 says', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(utf8Length(text)).toBe(Buffer.byteLength(text.toWellFormed()))
    }),
  )
})

test('no tokeniser makes more tokens of a prompt than its bound', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'grapheme', maxLength: 200 }), { maxLength: 5 }), (contents) => {
      const messages = contents.map((content) => ({ content }))
      const real = contents.reduce((total, content) => total + encode(content).length + 3, 3)
      expect(inputTokenBound(messages)).toBeGreaterThanOrEqual(real)
    }),
  )
})
