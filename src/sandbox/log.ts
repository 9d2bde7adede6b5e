import { type BilledUsage, NO_USAGE, formatAmount } from './bill.ts'
import { LogFile, readLogFile } from './log-file.ts'
import { type Bill, type CountedRequest, type Counters, Tally } from './tally.ts'

/** One request as the provider saw it. */
export interface LoggedRequest extends CountedRequest {
  readonly seq: number
  /** The provider's own id of the request, which its answers carry behind a prefix. */
  readonly id: string
  /** When it arrived, ISO 8601. */
  readonly at: string
  readonly attempt: number | null
  /** The HTTP status sent; 0 until there is one, and for ever when none was sent. */
  readonly status: number
  /** It got past refusals (401, 404, 429, 5xx): work had begun. */
  readonly begun: boolean
  /** The whole answer was handed to the connection. */
  readonly finished: boolean
  readonly clientGoneAt?: string
  /** When nothing more could happen to it. */
  readonly endedAt?: string
  readonly streamed: boolean
  readonly finishReason: string | null
  /** The tokens billed, which are the tokens it used unless a fault says otherwise. */
  readonly usage: BilledUsage
  /** In the currency of the bill, exact, nine decimals. */
  readonly billed: string
  /** The name of the API key, never the key. */
  readonly keyName: string | null
}

export type LogPatch = Partial<Omit<LoggedRequest, 'seq' | 'id' | 'at' | 'callKey' | 'attempt'>>

export interface LogOptions {
  readonly file: string | null
  /** Requests kept one by one; older ones that have ended are kept as sums only. */
  readonly keep: number
}

export const DEFAULT_KEEP = 20_000

/**
 * All requests since the log began: the latest one by one, all others as sums, so that hundreds of thousands fit into
 * memory and the bill stays complete. A file, when given, has all of them.
 */
export class RequestLog {
  readonly #kept = new Map<number, LoggedRequest>()
  readonly #folded = new Map<string | null, Tally>()
  readonly #file: LogFile | null
  readonly #keep: number
  /** Tells requests of this process from those of earlier ones that had no file. */
  readonly #start = Date.now().toString(36)
  #forgotten = 0
  #lastSeq = 0

  private constructor(file: LogFile | null, keep: number) {
    this.#file = file
    this.#keep = keep
  }

  static async open({ file, keep }: LogOptions): Promise<RequestLog> {
    const log = new RequestLog(file === null ? null : new LogFile(file), keep)
    if (file === null) return log
    for await (const request of readLogFile(file)) {
      // What comes after the end of a request changes nothing that is summed.
      if (request.seq <= log.#lastSeq && !log.#kept.has(request.seq)) continue
      log.#kept.set(request.seq, request)
      log.#lastSeq = Math.max(log.#lastSeq, request.seq)
      log.#foldOldest()
    }
    return log
  }

  /** Notes a request at its arrival; `callId` is the client's `x-client-request-id`. */
  open(callId: string | null): LoggedRequest {
    this.#lastSeq += 1
    const request: LoggedRequest = {
      seq: this.#lastSeq,
      id: `${this.#start}-${this.#lastSeq}`,
      at: new Date().toISOString(),
      ...splitCallId(callId),
      model: null,
      status: 0,
      begun: false,
      finished: false,
      streamed: false,
      finishReason: null,
      usage: NO_USAGE,
      billed: formatAmount(0n),
      keyName: null,
    }
    this.#kept.set(request.seq, request)
    this.#foldOldest()
    this.#file?.note(request)
    return request
  }

  update(seq: number, patch: LogPatch): void {
    const request = this.#kept.get(seq)
    if (request === undefined) return
    Object.assign(request, patch)
    this.#file?.note(request)
  }

  /** What was noted so far is in the file, even if this process is killed now. */
  flush(): void {
    this.#file?.flush()
  }

  get(seq: number): LoggedRequest | null {
    return this.#kept.get(seq) ?? null
  }

  /** In order of arrival. */
  since(seq: number): readonly LoggedRequest[] {
    return [...this.#kept.values()].filter((request) => request.seq > seq)
  }

  /** What was begun and has ended, each once; null when it is neither all in memory nor in a file. */
  billable(): Iterable<LoggedRequest> | AsyncIterable<LoggedRequest> | null {
    const isBillable = (request: LoggedRequest): boolean => request.begun && request.endedAt !== undefined
    if (this.#forgotten === 0) return this.since(0).filter(isBillable)
    if (this.#file === null) return null
    this.flush()
    return onceEach(readLogFile(this.#file.path), isBillable)
  }

  bill(currency: string): Bill {
    const byModel = this.#tallies()
    const byCallKey = Map.groupBy(this.#kept.values(), ({ model, callKey }) => JSON.stringify([model, callKey]))
    return {
      currency,
      total: Tally.sum(byModel.values()).billSums().billed,
      byModel: [...byModel].map(([model, tally]) => ({ model, ...tally.billSums() })),
      byCallKey: [...byCallKey.values()].map((group) => {
        const tally = new Tally()
        for (const request of group) tally.add(request)
        return { model: group[0]?.model ?? null, callKey: group[0]?.callKey ?? null, ...tally.billSums() }
      }),
      forgotten: this.#forgotten,
    }
  }

  counters(): Counters {
    const byModel = this.#tallies()
    const { byStatus: _, ...counts } = Tally.sum(byModel.values()).counts()
    return { ...counts, byModel: [...byModel].map(([model, tally]) => ({ model, ...tally.counts() })) }
  }

  /** Begins anew; what is still open counts for nothing. */
  reset(): void {
    this.#kept.clear()
    this.#folded.clear()
    this.#forgotten = 0
    this.#file?.clear()
  }

  close(): void {
    this.#file?.close()
  }

  #tallies(): ReadonlyMap<string | null, Tally> {
    const tallies = new Map([...this.#folded].map(([model, tally]) => [model, tally.copy()]))
    for (const request of this.#kept.values()) tallyOf(tallies, request.model).add(request)
    return tallies
  }

  /** Many at a time: a Map that loses its first entry again and again becomes slow. */
  #foldOldest(): void {
    if (this.#kept.size < 2 * this.#keep) return
    let excess = this.#kept.size - this.#keep
    for (const [seq, request] of this.#kept) {
      if (excess === 0) return
      excess -= 1
      if (request.endedAt === undefined) continue
      tallyOf(this.#folded, request.model).add(request)
      this.#kept.delete(seq)
      this.#forgotten += 1
    }
  }
}

async function* onceEach(
  requests: AsyncIterable<LoggedRequest>,
  isWanted: (request: LoggedRequest) => boolean,
): AsyncGenerator<LoggedRequest> {
  const seen = new Set<number>()
  for await (const request of requests) {
    if (!isWanted(request) || seen.has(request.seq)) continue
    seen.add(request.seq)
    yield request
  }
}

function tallyOf(tallies: Map<string | null, Tally>, model: string | null): Tally {
  const known = tallies.get(model)
  if (known !== undefined) return known
  const tally = new Tally()
  tallies.set(model, tally)
  return tally
}

/** `<callKey>:<attempt>`; a call key may hold colons itself. */
function splitCallId(callId: string | null): { readonly callKey: string | null; readonly attempt: number | null } {
  const match = callId === null ? null : /^(.*):(\d{1,9})$/su.exec(callId)
  return match === null ? { callKey: callId, attempt: null } : { callKey: match[1] ?? '', attempt: Number(match[2]) }
}
