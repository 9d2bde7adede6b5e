import { isRecord } from './json.ts'

/** Prices in nano USD (1 USD = 1,000,000,000) per 1,000,000 tokens. */
export interface Prices {
  readonly inputNano: bigint
  readonly outputNano: bigint
}

export interface BilledUsage {
  readonly promptTokens: number
  readonly completionTokens: number
}

const NANO_DIGITS = 9
const NANO_PER_USD = 10n ** BigInt(NANO_DIGITS)
const TOKENS_PER_PRICE = 1_000_000n
const DECIMAL = /^(\d{1,9})(?:\.(\d{1,9}))?$/u

/** Reads `"0.15"` as 150,000,000 nano USD; null when the text is no plain decimal with at most nine places. */
function parseUsd(text: unknown): bigint | null {
  const match = typeof text === 'string' ? DECIMAL.exec(text) : null
  if (match === null) return null
  return BigInt(match[1] ?? '0') * NANO_PER_USD + BigInt((match[2] ?? '').padEnd(NANO_DIGITS, '0'))
}

/** Always nine decimals: 2,350 nano is `"0.000002350"`. */
export function formatUsd(nano: bigint): string {
  const digits = nano.toString().padStart(NANO_DIGITS + 1, '0')
  return `${digits.slice(0, -NANO_DIGITS)}.${digits.slice(-NANO_DIGITS)}`
}

/**
 * What a request costs, in nano USD: one rounding, up, over the sum of both parts.
 *
 * @example 7 tokens in at 0.15 and 3 out at 0.60: (7 × 150,000,000 + 3 × 600,000,000) ÷ 1,000,000 = 2,850 nano.
 */
export function charge(usage: BilledUsage, prices: Prices): bigint {
  const exact = BigInt(usage.promptTokens) * prices.inputNano + BigInt(usage.completionTokens) * prices.outputNano
  return (exact + TOKENS_PER_PRICE - 1n) / TOKENS_PER_PRICE
}

/** What the bill needs of a logged request. */
export interface BillableRequest {
  readonly model: string | null
  readonly callKey: string | null
  readonly begun: boolean
  readonly usage: BilledUsage
  readonly billed: string
}

export interface BillSums {
  /** Requests of any outcome, refusals included. */
  readonly requests: number
  /** Requests it began to answer. */
  readonly begun: number
  readonly promptTokens: number
  readonly completionTokens: number
  /** USD, exact, nine decimals. */
  readonly billed: string
}

export interface Bill {
  readonly currency: 'USD'
  readonly total: string
  readonly byModel: readonly (BillSums & { readonly model: string | null })[]
  /** One line for each model and call key. */
  readonly byCallKey: readonly (BillSums & { readonly model: string | null; readonly callKey: string | null })[]
}

export function toBill(requests: readonly BillableRequest[]): Bill {
  const byModel = Map.groupBy(requests, ({ model }) => model)
  const byCallKey = Map.groupBy(requests, ({ model, callKey }) => JSON.stringify([model, callKey]))
  return {
    currency: 'USD',
    total: sum(requests).billed,
    byModel: [...byModel].map(([model, group]) => ({ model, ...sum(group) })),
    byCallKey: [...byCallKey.values()].map((group) => ({
      model: group[0]?.model ?? null,
      callKey: group[0]?.callKey ?? null,
      ...sum(group),
    })),
  }
}

function sum(requests: readonly BillableRequest[]): BillSums {
  return {
    requests: requests.length,
    begun: requests.filter((request) => request.begun).length,
    promptTokens: requests.reduce((tokens, request) => tokens + request.usage.promptTokens, 0),
    completionTokens: requests.reduce((tokens, request) => tokens + request.usage.completionTokens, 0),
    billed: formatUsd(requests.reduce((nano, request) => nano + (parseUsd(request.billed) ?? 0n), 0n)),
  }
}

/** Reads `{ "input": "0.15", "output": "0.60" }`, USD per 1,000,000 tokens. */
export function parsePrices(value: unknown): Prices | null {
  if (!isRecord(value)) return null
  const inputNano = parseUsd(value['input'])
  const outputNano = parseUsd(value['output'])
  return inputNano === null || outputNano === null ? null : { inputNano, outputNano }
}
