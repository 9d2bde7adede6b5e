import { parseCsv, type CsvRow } from './csv-table.ts'
import { parseDecimalExactly, unitsOf } from './decimal.ts'
import type { Currency, Nano } from './money.ts'

/** What a provider says that it bills for one request. */
export interface InvoiceLine {
  /** The first one of the file that names the request. */
  readonly line: number
  readonly requestId: string
  readonly model: string
  readonly currency: Currency
  readonly amount: Nano
  readonly tokens: bigint | null
}

export type ParsedInvoice =
  | { readonly ok: true; readonly lines: readonly InvoiceLine[] }
  | { readonly ok: false; readonly line: number; readonly message: string }

const REQUIRED = ['request_id', 'model', 'amount', 'currency'] as const
const NANO_PLACES = 9
/** What no column of the ledger holds: a thousand million in the major unit. */
const MAX_AMOUNT = 10n ** 18n

/**
 * Reads an invoice: CSV with the columns request_id, model, amount, currency and, if it likes, tokens, in any order, among
 * others. A request id is the provider's, or ours: `<call id>:<attempt>`. Lines of one request add up. Amounts finer than
 * a nano are rounded up, each line for itself.
 */
export function parseInvoice(text: string): ParsedInvoice {
  const table = parseCsv(text)
  if (!table.ok) return table
  const [header, ...rows] = table.rows
  const columns = new Map((header?.cells ?? []).map((name, index) => [name.trim().toLowerCase(), index]))
  const missing = REQUIRED.filter((name) => !columns.has(name))
  if (missing.length > 0) return { ok: false, line: 1, message: `names no column ${missing.join(', ')}` }
  const lines = new Map<string, InvoiceLine>()
  for (const row of rows) {
    const read = readRow(row, columns)
    if (typeof read === 'string') return { ok: false, line: row.line, message: read }
    const key = JSON.stringify([read.requestId, read.currency])
    const known = lines.get(key)
    lines.set(
      key,
      known ? { ...known, amount: known.amount + read.amount, tokens: plus(known.tokens, read.tokens) } : read,
    )
  }
  if (lines.size === 0) return { ok: false, line: 2, message: 'is missing: the invoice has no lines' }
  return { ok: true, lines: [...lines.values()] }
}

function readRow({ line, cells }: CsvRow, columns: ReadonlyMap<string, number>): InvoiceLine | string {
  const cell = (name: string) => (cells[columns.get(name) ?? cells.length] ?? '').trim()
  const [requestId, currency, tokens] = [cell('request_id'), cell('currency'), cell('tokens')]
  if (requestId === '') return 'has no request_id'
  const amount = parseDecimalExactly(cell('amount'))
  if (!amount) return `has an amount that is no number of zero or more: "${cell('amount')}"`
  const nano = unitsOf(amount, NANO_PLACES)
  if (nano > MAX_AMOUNT) return `has an amount that is too large: "${cell('amount')}"`
  if (!/^[A-Z]{3}$/.test(currency)) return `has no currency such as USD: "${currency}"`
  if (!/^\d{0,15}$/.test(tokens)) return `has tokens that are no number: "${tokens}"`
  return {
    line,
    requestId,
    model: cell('model'),
    currency,
    amount: nano,
    tokens: tokens === '' ? null : BigInt(tokens),
  }
}

function plus(left: bigint | null, right: bigint | null): bigint | null {
  return left === null || right === null ? null : left + right
}
