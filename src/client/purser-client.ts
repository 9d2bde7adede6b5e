import createClient, { type Client, type FetchResponse, type MaybeOptionalInit } from 'openapi-fetch'
import type { PathsWithMethod, RequiredKeysOf } from 'openapi-typescript-helpers'
import { problemOf } from './api-problem.ts'
import type { components, paths } from './schema.ts'
import { readServerEvents } from './server-events.ts'

/** Longer than the slowest request: the indexing of one upload. */
const REQUEST_TIMEOUT_MS = 60_000
const PREFIX = '/api/v1'
/** Of an answer that `if-none-match` names. */
const UNCHANGED = 304

/** What the OpenAPI document describes, by its name there. */
export type Schemas = components['schemas']

/** The addresses of the management API, without its prefix. */
type Addresses = { [Path in keyof paths as Path extends `${typeof PREFIX}${infer Rest}` ? Rest : never]: paths[Path] }
type Json = 'application/json'
type Method = 'get' | 'post' | 'put' | 'patch' | 'delete'
type At<M extends Method> = PathsWithMethod<Addresses, M>
type Init<P extends At<M>, M extends Method> = MaybeOptionalInit<Addresses[P], M>

/** May be left out where nothing of it is required. openapi-fetch, whose methods take it, does not export it. */
type InitParam<I> =
  RequiredKeysOf<I> extends never ? [(I & { [key: string]: unknown })?] : [I & { [key: string]: unknown }]

/** The JSON of an answer, which is one of each address where there may be several. */
type AnswerOf<P extends At<M>, M extends Method> =
  P extends At<M>
    ? Addresses[P][M] extends infer Operation extends Record<string | number, unknown>
      ? NonNullable<FetchResponse<Operation, object, Json>['data']>
      : never
    : never

/** A body that is sent as it is: what is wrong with it, the API says. */
interface AsItIs {
  readonly body: unknown
  /** For the braces of the path. */
  readonly path?: Readonly<Record<string, string>>
  readonly idempotencyKey?: string
}

/**
 * The management API as one key sees it, typed by its OpenAPI document. It repeats nothing by itself: what is sent with an
 * `idempotency-key` may be sent again, and has its effect once. What the API refuses is thrown as an `ApiProblem`.
 *
 * @example
 * const purser = new PurserClient('http://127.0.0.1:8080', key)
 * const run = await purser.get('/runs/{id}', { params: { path: { id } } })
 */
export class PurserClient {
  readonly url: string
  readonly #key: string
  readonly #timeoutMs: number
  readonly #signal: AbortSignal | undefined
  readonly #client: Client<Addresses, Json>

  /**
   * @param options `timeoutMs`: how long one request may take, uploads as well; events and downloads as long as they like.
   * `signal`: when it is aborted, all requests are, and no other is sent; its reason is what they throw
   */
  constructor(
    url: string,
    key: string,
    { timeoutMs = REQUEST_TIMEOUT_MS, signal }: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
  ) {
    this.url = url.replace(/\/+$/, '')
    this.#key = key
    this.#timeoutMs = timeoutMs
    this.#signal = signal
    this.#client = createClient<Addresses, Json>({
      baseUrl: `${this.url}${PREFIX}`,
      fetch: (request) => this.#askJson(request),
    })
  }

  async get<P extends At<'get'>>(path: P, ...init: InitParam<Init<P, 'get'>>) {
    return (await this.getTagged(path, ...init)).body
  }

  /** With its `ETag`: as `if-match` of a change, it has that made of this version only. Null where there are no versions. */
  async getTagged<P extends At<'get'>>(path: P, ...init: InitParam<Init<P, 'get'>>) {
    const { data, response } = await this.#client.GET<P, Init<P, 'get'>>(path, ...init)
    return { body: present(data), etag: response.headers.get('etag') }
  }

  /** As `getTagged`; undefined while the answer would be the one whose `ETag` is its `if-none-match`. */
  async getChanged<P extends At<'get'>>(path: P, ...init: InitParam<Init<P, 'get'>>) {
    const { data, response } = await this.#client.GET<P, Init<P, 'get'>>(path, ...init)
    return response.status === UNCHANGED ? undefined : { body: present(data), etag: response.headers.get('etag') }
  }

  async post<P extends At<'post'>>(path: P, ...init: InitParam<Init<P, 'post'>>) {
    return (await this.postOnce(path, ...init)).body
  }

  /** `isReplayed`: the effect was there already, from an earlier request with the same `idempotency-key`. */
  async postOnce<P extends At<'post'>>(path: P, ...init: InitParam<Init<P, 'post'>>) {
    const { data, response } = await this.#client.POST<P, Init<P, 'post'>>(path, ...init)
    return { body: present(data), isReplayed: response.headers.get('idempotency-replayed') === 'true' }
  }

  async put<P extends At<'put'>>(path: P, ...init: InitParam<Init<P, 'put'>>) {
    const { data } = await this.#client.PUT<P, Init<P, 'put'>>(path, ...init)
    return present(data)
  }

  async patch<P extends At<'patch'>>(path: P, ...init: InitParam<Init<P, 'patch'>>) {
    const { data } = await this.#client.PATCH<P, Init<P, 'patch'>>(path, ...init)
    return present(data)
  }

  async delete<P extends At<'delete'>>(path: P, ...init: InitParam<Init<P, 'delete'>>): Promise<void> {
    await this.#client.DELETE<P, Init<P, 'delete'>>(path, ...init)
  }

  startRun(what: AsItIs): Promise<Schemas['Run']> {
    return this.#sendAsItIs('POST', '/runs', what)
  }

  /** What a run would be like; nothing is stored, and no money moves. */
  planRun(body: object): Promise<Schemas['RunPlan']> {
    return this.#sendAsItIs('POST', '/runs', { body: { ...body, dryRun: true } })
  }

  /** What somebody wrote, in a file say: it is no type of ours. */
  postAsItIs<P extends At<'post'>>(path: P, what: AsItIs): Promise<AnswerOf<P, 'post'>> {
    return this.#sendAsItIs('POST', path, what)
  }

  patchAsItIs<P extends At<'patch'>>(path: P, what: AsItIs): Promise<AnswerOf<P, 'patch'>> {
    return this.#sendAsItIs('PATCH', path, what)
  }

  putAsItIs<P extends At<'put'>>(path: P, what: AsItIs): Promise<AnswerOf<P, 'put'>> {
    return this.#sendAsItIs('PUT', path, what)
  }

  /** A file as it is, of a type such as `text/csv`. */
  async uploadDataset(name: string, file: { readonly content: Uint8Array; readonly type: string }) {
    const query = new URLSearchParams({ name }).toString()
    const request = this.#request(`/datasets?${query}`, {
      method: 'POST',
      body: new Uint8Array(file.content),
      headers: { 'content-type': file.type },
    })
    const response = await this.#askJson(request)
    const dataset: Schemas['Dataset'] = JSON.parse(await response.text())
    return dataset
  }

  /** A long answer as it comes; it may take as long as it goes on. @throws when it is cut off */
  async *download(path: string): AsyncGenerator<Uint8Array> {
    const begun = new AbortController()
    const timer = setTimeout(() => begun.abort(this.#tooSlow()), this.#timeoutMs)
    const response = await this.#send(this.#request(path), begun.signal).finally(() => clearTimeout(timer))
    if (response.body) yield* response.body
  }

  /** A run's events from a place on, until the stream ends: at the run's last event, or when the connection does. */
  async *events(
    runId: string,
    { after, signal }: { readonly after?: string; readonly signal: AbortSignal },
  ): AsyncGenerator<Schemas['Event']> {
    const headers = { accept: 'text/event-stream', ...(after !== undefined && { 'last-event-id': after }) }
    const { body } = await this.#send(this.#request(`/runs/${encodeURIComponent(runId)}/events`, { headers }), signal)
    if (!body) return
    for await (const data of readServerEvents(body)) {
      const event: Schemas['Event'] = JSON.parse(data)
      yield event
    }
  }

  async #sendAsItIs<Answer>(method: string, path: string, what: AsItIs): Promise<Answer> {
    const { body, path: names = {}, idempotencyKey } = what
    const filled = path.replaceAll(/\{(\w+)\}/g, (_braces, name: string) => encodeURIComponent(names[name] ?? ''))
    const headers = {
      'content-type': 'application/json',
      ...(idempotencyKey !== undefined && { 'idempotency-key': idempotencyKey }),
    }
    const request = this.#request(filled, { method, headers, body: JSON.stringify(body) })
    const response = await this.#askJson(request)
    const answer: Answer = JSON.parse(await response.text())
    return answer
  }

  #request(path: string, init: RequestInit = {}): Request {
    return new Request(`${this.url}${PREFIX}${path}`, init)
  }

  /** One answer, read to its end within the time that a request has. */
  async #askJson(request: Request): Promise<Response> {
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(this.#tooSlow()), this.#timeoutMs)
    const signal = AbortSignal.any([request.signal, late.signal])
    try {
      const response = await this.#send(request, signal)
      const text = await response.text().catch((cause: unknown) => {
        if (signal.aborted) throw signal.reason
        throw new Error(`The answer of ${this.url} broke off.`, { cause })
      })
      const isJson = response.headers.get('content-type')?.includes('json') ?? false
      if (text !== '' && !isJson) throw this.#notPurser(response)
      const { status, headers } = response
      return new Response(text === '' ? null : text, { status, headers })
    } finally {
      clearTimeout(timer)
    }
  }

  /** @throws ApiProblem when the API refuses */
  async #send(request: Request, ofRequest: AbortSignal): Promise<Response> {
    const signal = this.#signal ? AbortSignal.any([ofRequest, this.#signal]) : ofRequest
    request.headers.set('authorization', `Bearer ${this.#key}`)
    const response = await fetch(request, { signal }).catch((cause: unknown) => {
      if (signal.aborted) throw signal.reason
      throw new Error(`No Purser answers at ${this.url}.`, { cause })
    })
    if (response.ok || response.status === UNCHANGED) return response
    const text = await response.text()
    throw problemOf(response.status, text) ?? this.#notPurser(response)
  }

  #notPurser({ status }: Response): Error {
    return new Error(`${this.url} answered ${status}, and not as Purser does.`)
  }

  #tooSlow(): Error {
    return new Error(`${this.url} has not answered within ${this.#timeoutMs / 1_000} s.`)
  }
}

function present<Data>(data: Data): NonNullable<Data> {
  if (data === undefined || data === null) throw new Error('Purser answered nothing where its document has an answer.')
  return data
}
