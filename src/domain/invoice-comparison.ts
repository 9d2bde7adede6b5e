import type { InvoiceLine } from './invoice.ts'
import type { Currency, Nano } from './money.ts'

/** An attempt as it was booked, with what its provider bills by the ledger. */
export interface BookedAttempt {
  readonly callId: string
  readonly attempt: number
  readonly providerRequestId: string | null
  readonly upstreamModel: string
  readonly currency: Currency
  readonly cost: Nano
  readonly tokens: bigint | null
  /** Whether it was sent in the period of the invoice, and is resolved: else the invoice need not have it. */
  readonly isDue: boolean
}

export const INVOICE_STATUSES = [
  'amount_differs',
  'model_differs',
  'tokens_differ',
  'unknown',
  'not_on_invoice',
] as const
export type InvoiceStatus = (typeof INVOICE_STATUSES)[number]

export interface InvoiceDifference {
  readonly status: InvoiceStatus
  readonly invoiced: InvoiceLine | null
  readonly booked: BookedAttempt | null
}

export interface InvoiceTotals {
  readonly currency: Currency
  readonly invoiced: Nano
  readonly booked: Nano
}

/** Compares what is booked, attempt by attempt as it is read, with an invoice. */
export class InvoiceComparison {
  readonly #lines: ReadonlyMap<string, readonly InvoiceLine[]>
  readonly #seen = new Set<InvoiceLine>()
  readonly #maxDifferences: number
  readonly differences: InvoiceDifference[] = []
  readonly counts: Record<InvoiceStatus | 'matched', number> = {
    matched: 0,
    amount_differs: 0,
    model_differs: 0,
    tokens_differ: 0,
    unknown: 0,
    not_on_invoice: 0,
  }
  readonly #booked = new Map<Currency, Nano>()
  readonly #invoiced = new Map<Currency, Nano>()

  /** All differences are counted; of so many each is told. */
  constructor(lines: readonly InvoiceLine[], options: { readonly maxDifferences: number }) {
    this.#lines = Map.groupBy(lines, ({ requestId }) => requestId)
    this.#maxDifferences = options.maxDifferences
    for (const { currency, amount } of lines) add(this.#invoiced, currency, amount)
  }

  look(booked: BookedAttempt): void {
    const ids = [`${booked.callId}:${booked.attempt}`, booked.providerRequestId ?? '']
    const lines = ids.flatMap((id) => this.#lines.get(id) ?? []).filter((line) => !this.#seen.has(line))
    const [line] = lines
    if (!line) {
      if (!booked.isDue || booked.cost === 0n) return
      add(this.#booked, booked.currency, booked.cost)
      this.#tell({ status: 'not_on_invoice', invoiced: null, booked })
      return
    }
    add(this.#booked, booked.currency, booked.cost)
    for (const each of lines) this.#seen.add(each)
    // Both its ids, or two currencies, for one request: what is asked for is all of it.
    const invoiced =
      lines.length === 1 ? line : { ...line, amount: lines.reduce((sum, { amount }) => sum + amount, 0n) }
    const status = statusOf(invoiced, {
      booked,
      isOneCurrency: lines.every(({ currency }) => currency === line.currency),
    })
    if (status === undefined) this.counts.matched += 1
    else this.#tell({ status, invoiced, booked })
  }

  /** What nothing that was looked at is billed by. */
  finish(): void {
    for (const invoiced of [...this.#lines.values()].flat())
      if (!this.#seen.has(invoiced)) this.#tell({ status: 'unknown', invoiced, booked: null })
  }

  totals(): readonly InvoiceTotals[] {
    const currencies = new Set([...this.#invoiced.keys(), ...this.#booked.keys()])
    return [...currencies].toSorted().map((currency) => ({
      currency,
      invoiced: this.#invoiced.get(currency) ?? 0n,
      booked: this.#booked.get(currency) ?? 0n,
    }))
  }

  #tell(difference: InvoiceDifference): void {
    this.counts[difference.status] += 1
    if (this.differences.length < this.#maxDifferences) this.differences.push(difference)
  }
}

function statusOf(
  invoiced: InvoiceLine,
  { booked, isOneCurrency }: { readonly booked: BookedAttempt; readonly isOneCurrency: boolean },
): InvoiceStatus | undefined {
  const isSameMoney = isOneCurrency && invoiced.currency === booked.currency && invoiced.amount === booked.cost
  if (!isSameMoney) return 'amount_differs'
  if (invoiced.model !== '' && invoiced.model !== booked.upstreamModel) return 'model_differs'
  const knowsTokens = invoiced.tokens !== null && booked.tokens !== null
  return knowsTokens && invoiced.tokens !== booked.tokens ? 'tokens_differ' : undefined
}

function add(sums: Map<Currency, Nano>, currency: Currency, amount: Nano): void {
  sums.set(currency, (sums.get(currency) ?? 0n) + amount)
}
