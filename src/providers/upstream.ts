import { CLIENT_REQUEST_ID_HEADER } from '#contracts/names.ts'
import { pipeline, type Readable } from 'node:stream'
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib'
import type { Dispatcher } from 'undici'
import { AnswerTooLong } from './answer-choice.ts'
import { DIRECT, type Connections } from './connections.ts'
import { UpstreamError, type Problem, type ProblemHeaders } from './problem.ts'

/** More than any answer, error or list of vectors takes: an upstream that never ends must not take the process along. */
const MAX_BODY_BYTES = 134_217_728
/** What comes after an answer's end: hardly ever more than the mark that says so. */
const MAX_REST_BYTES = 65_536
const MAX_REST_MS = 250

/** Where an upstream is, what opens it, and what it means by a body that says what is wrong. */
export interface Upstream {
  readonly baseUrl: string
  /** Left out: straight to it. */
  readonly connections?: Connections | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly problemOf: (body: unknown) => Problem
}

export interface UpstreamRequest {
  /** Below the base URL, whose own query stays. */
  readonly path: string
  readonly query?: Readonly<Record<string, string>>
  /** Left out: something is read. */
  readonly body?: object
  /** Under which `sending.ts` is asked whether it was written. */
  readonly clientRequestId?: string
  readonly signal: AbortSignal
}

/** What came back, as far as its headers. Its body is read once, one way or the other. */
export interface UpstreamAnswer {
  readonly headers: ProblemHeaders
  /** @throws AnswerTooLong, and what broke the connection */
  pieces(): AsyncGenerator<Uint8Array>
  /** @throws SyntaxError when it is not JSON, and as `pieces` does */
  json(): Promise<unknown>
}

/**
 * Sends one request, once, whatever happens. No redirect is followed: a prompt goes to the host that was configured and
 * nowhere else.
 *
 * @throws UpstreamError when the upstream refused it; otherwise what broke the connection
 */
export async function askUpstream(upstream: Upstream, request: UpstreamRequest): Promise<UpstreamAnswer> {
  const { connections = DIRECT } = upstream
  const { body, signal } = request
  const url = addressOf(upstream, request)
  const answer = await unlessAborted(
    signal,
    connections.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method: body ? 'POST' : 'GET',
      headers: headersOf(upstream, request),
      body: body ? JSON.stringify(body) : null,
      headersTimeout: 0,
      bodyTimeout: 0,
      signal,
    }),
  )
  const { statusCode: status } = answer
  const headers: ProblemHeaders = { get: (name) => oneOf(answer.headers[name]) }
  const pieces = () => piecesOf(answer)
  if (status >= 200 && status < 300) return { headers, pieces, json: async () => parseJson(await textOf(pieces())) }
  // What broke while it told what is wrong tells less than its status.
  const text = await textOf(pieces()).catch(() => '')
  throw new UpstreamError(refusalOf(upstream, { status, headers, text }))
}

function addressOf({ baseUrl }: Upstream, { path, query = {} }: UpstreamRequest): URL {
  const url = new URL(baseUrl)
  url.pathname = `${url.pathname.replace(/\/+$/, '')}${path}`
  for (const [name, value] of Object.entries(query)) url.searchParams.append(name, value)
  return url
}

function headersOf(upstream: Upstream, { body, clientRequestId }: UpstreamRequest): Readonly<Record<string, string>> {
  return {
    ...upstream.headers,
    accept: 'application/json',
    // A stream that is compressed comes in larger pieces, and later.
    'accept-encoding': 'identity',
    'user-agent': 'purser',
    ...(body && { 'content-type': 'application/json' }),
    ...(clientRequestId !== undefined && { [CLIENT_REQUEST_ID_HEADER]: clientRequestId }),
  }
}

/** A request that waits for its connection looks at its signal only when it has one, and is not written then. */
async function unlessAborted<Answer>(signal: AbortSignal, answer: Promise<Answer>): Promise<Answer> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const abort = (): void => reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([answer, aborted])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

interface Refusal {
  readonly status: number
  readonly headers: ProblemHeaders
  readonly text: string
}

function refusalOf({ problemOf }: Upstream, { status, headers, text }: Refusal): Problem {
  const body = jsonIn(text)
  const told = body === undefined ? { codes: [], message: text.trim() } : problemOf(body)
  return { codes: told.codes, message: `${status} ${told.message || 'without a word'}`, status, headers }
}

/** Undefined for what is not JSON. */
export function jsonIn(text: string): unknown {
  try {
    return parseJson(text)
  } catch {
    return undefined
  }
}

/** @throws SyntaxError */
export function parseJson(text: string): unknown {
  try {
    const parsed: unknown = JSON.parse(text)
    return parsed
  } catch {
    // Its own message would quote the answer.
    throw new SyntaxError('what came is not JSON')
  }
}

async function textOf(pieces: AsyncIterable<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const bytes of pieces) text += decoder.decode(bytes, { stream: true })
  return text + decoder.decode()
}

async function* piecesOf(answer: Dispatcher.ResponseData): AsyncGenerator<Uint8Array> {
  let count = 0
  try {
    for await (const bytes of readable(answer).iterator({ destroyOnReturn: false })) {
      if (!(bytes instanceof Uint8Array)) throw new TypeError('the body is not of bytes')
      count += bytes.length
      if (count > MAX_BODY_BYTES) throw new AnswerTooLong(`the answer has more than ${MAX_BODY_BYTES} bytes`)
      yield bytes
    }
  } finally {
    readRest(answer, count)
  }
}

const DECODERS = new Map([
  ['gzip', createGunzip],
  ['x-gzip', createGunzip],
  ['deflate', createInflate],
  ['br', createBrotliDecompress],
])

/** Nobody was asked to compress; some do. */
function readable({ body, headers }: Dispatcher.ResponseData): Readable {
  const decoder = DECODERS.get(oneOf(headers['content-encoding'])?.toLowerCase() ?? '')
  return decoder ? pipeline(body, decoder(), () => {}) : body
}

/**
 * Whoever has heard the answer's end stops reading, mostly a moment before the last byte: a connection that is read to its
 * end serves the next request, one that is cut has to be made again. An abort cuts it at once, by its own signal.
 */
function readRest({ body }: Dispatcher.ResponseData, count: number): void {
  if (body.readableEnded || body.destroyed) return
  const timer = setTimeout(() => body.destroy(), MAX_REST_MS)
  body
    .dump({ limit: count + MAX_REST_BYTES })
    .catch(() => {})
    .finally(() => clearTimeout(timer))
}

function oneOf(value: string | readonly string[] | undefined): string | null {
  return typeof value === 'string' ? value : (value?.join(', ') ?? null)
}
