import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import type { BillableRequest, BilledUsage } from './bill.ts'
import { formatUsd } from './bill.ts'
import { isRecord, numberOrNull, parseJson, stringOrNull } from './json.ts'

/** One request as the provider saw it. */
export interface LoggedRequest extends BillableRequest {
  readonly seq: number
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
  /** The tokens billed, which are the tokens it used unless a fault says otherwise. */
  readonly usage: BilledUsage
  /** USD, exact, nine decimals. */
  readonly billed: string
  /** The name of the API key, never the key. */
  readonly keyName: string | null
}

export type LogPatch = Partial<Omit<LoggedRequest, 'seq' | 'at' | 'callKey' | 'attempt'>>

/** All requests since the log began, kept in memory and, when given a file, as JSON lines: the last line of a `seq` counts. */
export class RequestLog {
  readonly #requests = new Map<number, LoggedRequest>()
  readonly #file: string | null
  #lastSeq = 0

  constructor(file: string | null) {
    this.#file = file
    if (file === null || !existsSync(file)) return
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      const request = readLine(line)
      if (request === null) continue
      this.#requests.set(request.seq, request)
      this.#lastSeq = Math.max(this.#lastSeq, request.seq)
    }
  }

  /** Notes a request at its arrival; `callId` is the client's `x-client-request-id`. */
  open(callId: string | null): number {
    this.#lastSeq += 1
    const seq = this.#lastSeq
    this.#write({
      seq,
      at: new Date().toISOString(),
      ...splitCallId(callId),
      model: null,
      status: 0,
      begun: false,
      finished: false,
      usage: { promptTokens: 0, completionTokens: 0 },
      billed: formatUsd(0n),
      keyName: null,
    })
    return seq
  }

  update(seq: number, patch: LogPatch): void {
    const request = this.#requests.get(seq)
    if (request !== undefined) this.#write({ ...request, ...patch })
  }

  get(seq: number): LoggedRequest | null {
    return this.#requests.get(seq) ?? null
  }

  /** In order of arrival. */
  since(seq: number): readonly LoggedRequest[] {
    return [...this.#requests.values()].filter((request) => request.seq > seq)
  }

  #write(request: LoggedRequest): void {
    this.#requests.set(request.seq, request)
    if (this.#file !== null) appendFileSync(this.#file, `${JSON.stringify(request)}\n`)
  }
}

/** `<callKey>:<attempt>`; a call key may hold colons itself. */
function splitCallId(callId: string | null): { readonly callKey: string | null; readonly attempt: number | null } {
  const match = callId === null ? null : /^(.*):(\d{1,9})$/su.exec(callId)
  return match === null ? { callKey: callId, attempt: null } : { callKey: match[1] ?? '', attempt: Number(match[2]) }
}

/** Null for a line that a crash cut short. */
function readLine(line: string): LoggedRequest | null {
  const parsed = parseJson(line)
  if (!parsed.ok || !isRecord(parsed.value)) return null
  const { value } = parsed
  const seq = numberOrNull(value['seq'])
  const usage = isRecord(value['usage']) ? value['usage'] : {}
  const clientGoneAt = stringOrNull(value['clientGoneAt'])
  if (seq === null) return null
  return {
    seq,
    at: stringOrNull(value['at']) ?? '',
    callKey: stringOrNull(value['callKey']),
    attempt: numberOrNull(value['attempt']),
    model: stringOrNull(value['model']),
    status: numberOrNull(value['status']) ?? 0,
    begun: value['begun'] === true,
    finished: value['finished'] === true,
    ...(clientGoneAt === null ? {} : { clientGoneAt }),
    usage: {
      promptTokens: numberOrNull(usage['promptTokens']) ?? 0,
      completionTokens: numberOrNull(usage['completionTokens']) ?? 0,
    },
    billed: stringOrNull(value['billed']) ?? formatUsd(0n),
    keyName: stringOrNull(value['keyName']),
  }
}
