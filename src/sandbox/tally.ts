import { type BilledUsage, formatAmount, parseAmount } from './bill.ts'

/** What counters and bill need of a logged request. */
export interface CountedRequest {
  readonly model: string | null
  readonly callKey: string | null
  readonly status: number
  readonly begun: boolean
  readonly finished: boolean
  readonly clientGoneAt?: string
  readonly endedAt?: string
  readonly usage: BilledUsage
  /** In the currency of the bill, exact, nine decimals. */
  readonly billed: string
}

export interface BillSums {
  /** Requests of any outcome, refusals included. */
  readonly requests: number
  /** Requests it began to answer. */
  readonly begun: number
  readonly promptTokens: number
  readonly completionTokens: number
  /** Exact, nine decimals. */
  readonly billed: string
}

export interface Bill {
  readonly currency: string
  readonly total: string
  readonly byModel: readonly (BillSums & { readonly model: string | null })[]
  /** One line for each model and call key, of the requests that the log still holds. */
  readonly byCallKey: readonly (BillSums & { readonly model: string | null; readonly callKey: string | null })[]
  /** Requests that are in the total and no longer in the log. */
  readonly forgotten: number
}

export interface Counts {
  readonly requests: number
  readonly begun: number
  /** The whole answer was handed to the connection. */
  readonly finished: number
  /** Begun, and given up by the client before its end. */
  readonly aborted: number
  /** Nothing more will happen to them: refused, finished, cut or aborted. */
  readonly ended: number
}

export interface Counters extends Counts {
  readonly byModel: readonly (Counts & {
    readonly model: string | null
    readonly byStatus: Readonly<Record<string, number>>
  })[]
}

/** Sums over requests, each added once. */
export class Tally {
  requests = 0
  begun = 0
  finished = 0
  aborted = 0
  ended = 0
  #promptTokens = 0
  #completionTokens = 0
  #billedNano = 0n
  readonly #byStatus = new Map<number, number>()

  add(request: CountedRequest): void {
    this.requests += 1
    if (request.begun) this.begun += 1
    if (request.finished) this.finished += 1
    if (request.begun && !request.finished && request.clientGoneAt !== undefined) this.aborted += 1
    if (request.endedAt !== undefined) this.ended += 1
    this.#promptTokens += request.usage.promptTokens
    this.#completionTokens += request.usage.completionTokens
    this.#billedNano += parseAmount(request.billed) ?? 0n
    this.#byStatus.set(request.status, (this.#byStatus.get(request.status) ?? 0) + 1)
  }

  copy(): Tally {
    const copy = new Tally()
    copy.#merge(this)
    return copy
  }

  billSums(): BillSums {
    const { requests, begun } = this
    const tokens = { promptTokens: this.#promptTokens, completionTokens: this.#completionTokens }
    return { requests, begun, ...tokens, billed: formatAmount(this.#billedNano) }
  }

  counts(): Counts & { readonly byStatus: Readonly<Record<string, number>> } {
    const { requests, begun, finished, aborted, ended } = this
    return { requests, begun, finished, aborted, ended, byStatus: Object.fromEntries(this.#byStatus) }
  }

  static sum(tallies: Iterable<Tally>): Tally {
    const sum = new Tally()
    for (const tally of tallies) sum.#merge(tally)
    return sum
  }

  #merge(other: Tally): void {
    this.requests += other.requests
    this.begun += other.begun
    this.finished += other.finished
    this.aborted += other.aborted
    this.ended += other.ended
    this.#promptTokens += other.#promptTokens
    this.#completionTokens += other.#completionTokens
    this.#billedNano += other.#billedNano
    for (const [status, count] of other.#byStatus) {
      this.#byStatus.set(status, (this.#byStatus.get(status) ?? 0) + count)
    }
  }
}
