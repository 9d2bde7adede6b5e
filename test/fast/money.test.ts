import { ceilDivide, formatNano, MAX_NANO, parseDecimal } from '#domain/money.ts'
import { chargeOf, worstCaseOf, type Prices, type Usage } from '#domain/pricing.ts'
import { inputTokenBound, utf8Length } from '#domain/token-bound.ts'
import fc from 'fast-check'
import { encode } from 'gpt-tokenizer/encoding/o200k_base'
import { expect, test } from 'vitest'

const nano = fc.bigInt({ min: 0n, max: MAX_NANO })
const tokens = fc.integer({ min: 0, max: 2_000_000 })
const price = fc.bigInt({ min: 0n, max: 1_000_000_000_000n })
const tokenPrices = {
  inputNanoPerMillion: price,
  cachedInputNanoPerMillion: price,
  cacheWriteNanoPerMillion: price,
  outputNanoPerMillion: price,
  reasoningNanoPerMillion: price,
}
const fee = fc.bigInt({ min: 0n, max: 1_000_000_000n })
const prices: fc.Arbitrary<Prices> = fc.record({
  ...tokenPrices,
  perCallNano: fee,
  perImageNano: fee,
  toolFeesNano: fc.dictionary(fc.constantFrom('web_search', 'code'), fee),
  tiers: fc
    .uniqueArray(fc.record({ aboveInputTokens: tokens, ...tokenPrices }), {
      selector: ({ aboveInputTokens }) => aboveInputTokens,
      maxLength: 3,
    })
    .map((tiers) => tiers.toSorted((a, b) => a.aboveInputTokens - b.aboveInputTokens)),
})
/** Shares, in per cent, of a bound. */
const usageWithin = (inputTokens: number, maxOutputTokens: number) =>
  fc.tuple(...Array.from({ length: 5 }, () => fc.nat(100))).map(([a = 0, b = 0, c = 0, d = 0, e = 0]): Usage => {
    const part = (whole: number, share: number) => Math.floor((whole * share) / 100)
    const input = part(inputTokens, a)
    const cachedInput = part(input, b)
    const output = part(maxOutputTokens, d)
    return {
      input,
      cachedInput,
      cacheWrite: part(input - cachedInput, c),
      output,
      reasoning: part(output, e),
      images: 2,
      toolUses: { web_search: 3 },
    }
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
    fc.property(prices, usageWithin(2_000_000, 2_000_000), (each, usage) => {
      const { input, cachedInput, cacheWrite, output, reasoning } = usage
      const tier = each.tiers.findLast(({ aboveInputTokens }) => aboveInputTokens < input) ?? each
      const exact =
        BigInt(input - cachedInput - cacheWrite) * tier.inputNanoPerMillion +
        BigInt(cachedInput) * tier.cachedInputNanoPerMillion +
        BigInt(cacheWrite) * tier.cacheWriteNanoPerMillion +
        BigInt(output - reasoning) * tier.outputNanoPerMillion +
        BigInt(reasoning) * tier.reasoningNanoPerMillion
      const fees = each.perCallNano + 2n * each.perImageNano + 3n * (each.toolFeesNano['web_search'] ?? 0n)
      const charge = (chargeOf(each, usage) - fees) * 1_000_000n
      expect(charge).toBeGreaterThanOrEqual(exact)
      expect(charge - exact).toBeLessThan(1_000_000n)
    }),
  )
})

test('no usage within the bounds costs more than the worst case', () => {
  fc.assert(
    fc.property(
      prices,
      fc
        .tuple(tokens, tokens)
        .chain(([input, output]) => fc.tuple(fc.constant(input), fc.constant(output), usageWithin(input, output))),
      (each, [inputTokens, maxOutputTokens, usage]) => {
        const bound = { inputTokens, maxOutputTokens, images: 2, toolUses: { web_search: 3 } }
        expect(chargeOf(each, usage)).toBeLessThanOrEqual(worstCaseOf(each, bound))
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
      const real = contents.reduce((total, content) => total + encode(content).length + 3, 3)
      expect(inputTokenBound(contents)).toBeGreaterThanOrEqual(real)
    }),
  )
})
