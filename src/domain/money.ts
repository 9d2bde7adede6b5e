import { invariant } from './invariant.ts'

/** ISO 4217 code, upper case. */
export type Currency = string

/** Money in the ledger: integer nano of a currency (1 USD = 1 000 000 000 nano). */
export type Nano = bigint

/** Money on the wire: a decimal string in the major unit, with its currency. */
export interface Amount {
  readonly amount: string
  readonly currency: Currency
}

/** Largest amount one movement may carry: 10^15 nano = 1 000 000 in the major unit. */
export const MAX_NANO = 1_000_000_000_000_000n

const NANO_DIGITS = 9
const NANO_PER_UNIT = 1_000_000_000n
const DECIMAL = /^(0|[1-9]\d{0,11})(?:\.(\d+))?$/

export type AmountProblem = 'malformed' | 'too_precise' | 'too_large'

export type ParsedNano =
  | { readonly ok: true; readonly nano: Nano }
  | { readonly ok: false; readonly reason: AmountProblem }

/**
 * Reads a non-negative decimal string in the major unit.
 *
 * @example parseDecimal('0.00235') // { ok: true, nano: 2_350_000n }
 */
export function parseDecimal(text: string): ParsedNano {
  const match = DECIMAL.exec(text)
  if (!match) return { ok: false, reason: 'malformed' }
  const fraction = match[2] ?? ''
  if (fraction.length > NANO_DIGITS) return { ok: false, reason: 'too_precise' }
  const nano = BigInt(match[1] ?? '0') * NANO_PER_UNIT + BigInt(fraction.padEnd(NANO_DIGITS, '0'))
  return nano > MAX_NANO ? { ok: false, reason: 'too_large' } : { ok: true, nano }
}

/**
 * Writes nano as a decimal string in the major unit: six decimals at least, nine when needed.
 *
 * @example formatNano(2_350_000n) // '0.002350'
 */
export function formatNano(nano: Nano): string {
  if (nano === 0n) return NOTHING
  const sign = nano < 0n ? '-' : ''
  const digits = (nano < 0n ? -nano : nano).toString().padStart(NANO_DIGITS + 1, '0')
  const fraction = digits.slice(-NANO_DIGITS)
  return `${sign}${digits.slice(0, -NANO_DIGITS)}.${fraction.slice(0, 6)}${fraction.slice(6).replace(/0+$/, '')}`
}

/** Half of what a report tells of an attempt. */
const NOTHING = '0.000000'

export function toAmount(nano: Nano, currency: Currency): Amount {
  return { amount: formatNano(nano), currency }
}

/** Rounds up: holds and charges never lose a fraction of a nano to the payer. */
export function ceilDivide(numerator: bigint, denominator: bigint): bigint {
  invariant(denominator > 0n && numerator >= 0n, 'ceilDivide takes a non-negative numerator and a positive denominator')
  return (numerator + denominator - 1n) / denominator
}
