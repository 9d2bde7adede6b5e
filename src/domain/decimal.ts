/** A non-negative number as it was written, with nothing lost: `digits` × 10^`exponent`. */
export interface Decimal {
  readonly digits: bigint
  readonly exponent: number
}

/** No number of a price list or an invoice is longer: what is, is not worth the digits. */
const MAX_EXPONENT = 40
const DECIMAL = /^(\d{1,60})(?:\.(\d{1,60}))?(?:[eE]([+-]?\d{1,3}))?$/

/**
 * Reads a number from its source text, as JSON and CSV write it. Undefined for what is negative, or no number.
 *
 * @example parseDecimalExactly('2.5e-06') // { digits: 25n, exponent: -7 }
 */
export function parseDecimalExactly(text: string): Decimal | undefined {
  const match = DECIMAL.exec(text)
  if (!match) return undefined
  const [, whole = '', fraction = '', exponent = '0'] = match
  const decimal = { digits: BigInt(whole + fraction), exponent: Number(exponent) - fraction.length }
  return Math.abs(decimal.exponent) > MAX_EXPONENT + fraction.length ? undefined : decimal
}

/**
 * How many units of 10^`-places` a number is, rounded up: what is finer than the ledger never comes out cheaper.
 *
 * @example unitsOf({ digits: 25n, exponent: -7 }, 15) // 2_500_000_000n: 2.5e-06 a token in nano per million
 */
export function unitsOf({ digits, exponent }: Decimal, places: number): bigint {
  const shift = exponent + places
  if (shift >= 0) return digits * 10n ** BigInt(shift)
  const divisor = 10n ** BigInt(-shift)
  return (digits + divisor - 1n) / divisor
}
