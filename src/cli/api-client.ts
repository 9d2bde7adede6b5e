import { eventSchema, type EventView } from '#contracts/api-event.ts'
import { problemSchema, type ProblemBody } from '#contracts/api-problem.ts'
import type { z } from 'zod'
import { readServerEvents } from './server-events.ts'

/** Longer than the slowest request: the indexing of one upload. */
const REQUEST_TIMEOUT_MS = 60_000

/** The API refused, and says why. */
export class ApiProblem extends Error {
  override readonly name = 'ApiProblem'
  readonly status: number
  readonly problem: ProblemBody

  constructor(status: number, problem: ProblemBody) {
    const { detail, remedy } = problem
    const isSentence = /[.!?]$/.test(detail)
    super(remedy === undefined ? detail : `${detail}${isSentence ? '' : '.'} ${remedy}`)
    this.status = status
    this.problem = problem
  }
}

export interface Post<Schema extends z.ZodType> {
  readonly body?: unknown
  /** Of the answer. */
  readonly schema: Schema
  /** The same request with the same key has its effect once. */
  readonly idempotencyKey?: string
}

interface Change<Schema extends z.ZodType> {
  readonly body: unknown
  /** Of the answer. */
  readonly schema: Schema
}

/** The management API as one key sees it. */
export class ApiClient {
  readonly url: string
  readonly #key: string

  constructor(url: string, key: string) {
    this.url = url.replace(/\/+$/, '')
    this.#key = key
  }

  async get<Schema extends z.ZodType>(path: string, schema: Schema): Promise<z.output<Schema>> {
    return schema.parse(await (await this.#send(path, { method: 'GET' })).json())
  }

  /** A long answer as it comes; it may take as long as it goes on. @throws when it is cut off */
  async *download(path: string): AsyncGenerator<Uint8Array> {
    const begun = new AbortController()
    const timer = setTimeout(() => begun.abort(), REQUEST_TIMEOUT_MS)
    const response = await this.#send(path, { method: 'GET', signal: begun.signal }).finally(() => clearTimeout(timer))
    if (response.body) yield* response.body
  }

  /** `isReplayed`: the effect was there already, from an earlier request with the same idempotency key. */
  async post<Schema extends z.ZodType>(
    path: string,
    { body, schema, idempotencyKey }: Post<Schema>,
  ): Promise<{ readonly body: z.output<Schema>; readonly isReplayed: boolean }> {
    const response = await this.#send(path, {
      method: 'POST',
      ...(body !== undefined && { body: JSON.stringify(body) }),
      headers: {
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...(idempotencyKey !== undefined && { 'idempotency-key': idempotencyKey }),
      },
    })
    const isReplayed = response.headers.get('idempotency-replayed') === 'true'
    return { body: schema.parse(await response.json()), isReplayed }
  }

  put<Schema extends z.ZodType>(path: string, change: Change<Schema>): Promise<z.output<Schema>> {
    return this.#change('PUT', path, change)
  }

  patch<Schema extends z.ZodType>(path: string, change: Change<Schema>): Promise<z.output<Schema>> {
    return this.#change('PATCH', path, change)
  }

  async delete(path: string): Promise<void> {
    await this.#send(path, { method: 'DELETE' })
  }

  /** A file as it is. */
  async upload<Schema extends z.ZodType>(
    path: string,
    file: { readonly content: Buffer; readonly type: string; readonly schema: Schema },
  ): Promise<z.output<Schema>> {
    const headers = { 'content-type': file.type }
    const response = await this.#send(path, { method: 'POST', body: new Uint8Array(file.content), headers })
    return file.schema.parse(await response.json())
  }

  async #change<Schema extends z.ZodType>(
    method: 'PUT' | 'PATCH',
    path: string,
    { body, schema }: Change<Schema>,
  ): Promise<z.output<Schema>> {
    const headers = { 'content-type': 'application/json' }
    const response = await this.#send(path, { method, body: JSON.stringify(body), headers })
    return schema.parse(await response.json())
  }

  /** A run's events from a place on, until the stream ends: at the run's last event, or when the connection does. */
  async *events(
    runId: string,
    options: { readonly after?: string; readonly signal: AbortSignal },
  ): AsyncGenerator<EventView> {
    const { after, signal } = options
    const headers = { accept: 'text/event-stream', ...(after !== undefined && { 'last-event-id': after }) }
    const response = await this.#send(`/runs/${runId}/events`, { method: 'GET', headers, signal })
    if (!response.body) return
    for await (const data of readServerEvents(response.body)) yield eventSchema.parse(JSON.parse(data))
  }

  async #send(path: string, request: RequestInit): Promise<Response> {
    const headers = new Headers(request.headers)
    headers.set('authorization', `Bearer ${this.#key}`)
    const signal = request.signal ?? AbortSignal.timeout(REQUEST_TIMEOUT_MS)
    const response = await fetch(`${this.url}/api/v1${path}`, { ...request, headers, signal }).catch(
      (cause: unknown) => {
        if (signal.aborted) throw cause
        throw new Error(`No Purser answers at ${this.url}.`, { cause })
      },
    )
    if (response.ok) return response
    const text = await response.text()
    throw (
      problemOf(response.status, text) ?? new Error(`${this.url} answered ${response.status}, and not as Purser does.`)
    )
  }
}

function problemOf(status: number, text: string): ApiProblem | undefined {
  try {
    return new ApiProblem(status, problemSchema.parse(JSON.parse(text)))
  } catch {
    return undefined // not an answer of the API: a proxy, or something else at this address
  }
}
