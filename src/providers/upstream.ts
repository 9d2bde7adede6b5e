import { CLIENT_REQUEST_ID_HEADER } from '#contracts/names.ts'
import { DIRECT, type Connections } from './connections.ts'
import { jsonIn } from './json-text.ts'
import { UpstreamError, type Problem, type ProblemHeaders } from './problem.ts'
import { headerText, ResponseBody } from './response-body.ts'

/** What is read of a refusal: it names its reason at its start, and the next route waits for its end. */
const REFUSAL = { bytes: 65_536, ms: 5_000 } as const

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

/** What came back, as far as its headers. */
export interface UpstreamAnswer {
  readonly headers: ProblemHeaders
  readonly body: ResponseBody
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
  const headers: ProblemHeaders = { get: (name) => headerText(answer.headers[name]) }
  const responseBody = new ResponseBody(answer)
  if (status >= 200 && status < 300) return { headers, body: responseBody }
  const text = await responseBody.beginning(REFUSAL)
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
  const isPage = body === undefined && /^\s*</.test(text)
  const told = body === undefined ? { codes: [], message: isPage ? titleOf(text) : text.trim() } : problemOf(body)
  return { codes: told.codes, message: `${status} ${told.message || silenceOf(status)}`, status, isPage, headers }
}

/** Its marks are nothing for who reads why a call failed. */
function titleOf(page: string): string {
  const [, title = 'without a title'] = /<title[^>]*>([^<]*)/i.exec(page) ?? []
  return `a page: ${title.trim()}`
}

function silenceOf(status: number): string {
  return status >= 300 && status < 400
    ? "is a redirect, which is not followed: correct the provider's baseUrl"
    : 'without a word'
}
