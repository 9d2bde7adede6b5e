import type { Failure } from './failure.ts'

/** What an upstream said was wrong, in no dialect of its own. */
export interface Problem {
  /** Of the response, or named by an error inside a stream; null where that names none. */
  readonly status: number | null
  /** Its codes and types, the most exact first. */
  readonly codes: readonly string[]
  readonly message: string
  /** It was no error of the API but a page, of a wall or a proxy before it. */
  readonly isPage?: boolean
  readonly headers?: ProblemHeaders | undefined
}

/** Headers of an answer; null for those that did not come. Names in lower case. */
export interface ProblemHeaders {
  get(name: string): string | null
}

/** An error that an upstream put in the place of its answer. */
export class UpstreamError extends Error {
  override readonly name = 'UpstreamError'
  readonly problem: Problem

  constructor(problem: Problem) {
    super(problem.message)
    this.problem = problem
  }
}

type ProblemOutcome = Failure['outcome']
type Namings<Name> = readonly (readonly [ProblemOutcome, readonly Name[]])[]

/** Codes and types of OpenAI, Anthropic, OpenRouter, Groq, Moonshot, llama.cpp: each names the same in its own way. */
const codings: Namings<string> = [
  [
    'quota_gone',
    [
      'insufficient_quota',
      'billing_hard_limit_reached',
      'billing_not_active',
      'billing_error',
      'exceeded_current_quota_error',
      'contract_spend_limit_reached',
      'enforced_spend_limit_reached',
      'linked_organization_billing_unavailable',
      'linked_organization_spend_limit_reached',
      'organization_on_hold',
    ],
  ],
  ['content_filter', ['content_filter', 'content_policy_violation']],
  [
    'context_too_long',
    [
      'context_length_exceeded',
      'exceed_context_size_error',
      'request_too_large',
      'request_body_too_large_after_decoding',
    ],
  ],
  ['model_not_found', ['model_not_found', 'model_decommissioned', 'not_found_error']],
  ['rate_limited', ['rate_limit_exceeded', 'rate_limit_error', 'rate_limit_reached_error', 'ramp_limit_exceeded']],
  ['overloaded', ['overloaded', 'overloaded_error', 'engine_overloaded_error']],
  ['authentication', ['invalid_api_key', 'authentication_error', 'permission_error']],
  ['timeout', ['timeout_error']],
]

const byCode = new Map(codings.flatMap(([outcome, codes]) => codes.map((code) => [code, outcome] as const)))

/** Where neither code nor status says it: Anthropic, vLLM, xAI, DeepSeek and Together tell it in words. */
const wordings: Namings<RegExp> = [
  ['quota_gone', [/credit balance is too low/i, /used all available credits/i, /insufficient (balance|credits)/i]],
  [
    'context_too_long',
    [
      /maximum (context|prompt) length/i,
      /context (length|window|size|limit)/i,
      /prompt is too long/i,
      /reduce the length/i,
      /`?inputs`? tokens \+ `?max_new_tokens`?/i,
    ],
  ],
  ['model_not_found', [/not a valid model/i, /model not exist/i]],
  ['content_filter', [/\b(content|prompt|request|input|it) violates?\b.{0,60}\b(guidelines|polic)/i]],
]

/** What says something of a route, for all who ask there: of these a caller's own words are no evidence. */
const SHARED: ReadonlySet<ProblemOutcome> = new Set(['quota_gone', 'model_not_found'])

/** The statuses that a refusal in words comes with. */
const SPEAKING: ReadonlySet<number | null> = new Set([null, 400, 403, 404, 422, 429])

/** What a proxy says when it lost sight of the upstream: the request may have been executed. */
const MAY_HAVE_RUN: ReadonlySet<number> = new Set([502, 504, 522, 524])

/** @param asked the request: providers repeat pieces of what they refuse */
export function outcomeOf({ status, codes, message, isPage }: Problem, asked: string): ProblemOutcome {
  if (status === 402) return 'quota_gone'
  if (status === 413) return 'context_too_long'
  const coded = codes.map((code) => byCode.get(code)).find((outcome) => outcome !== undefined)
  if (coded !== undefined) return coded
  const worded = SPEAKING.has(status) ? wordedOutcome(message, asked) : undefined
  if (worded !== undefined) return worded
  // A wall stops a prompt, and knows no key: one caller's must not close the route to all as a refused key does.
  if (status === 403 && isPage) return 'model_not_found'
  // An error inside a stream that names nothing known came after the request was taken on.
  return status === null ? 'cut_stream' : outcomeOfStatus(status)
}

function wordedOutcome(message: string, asked: string): ProblemOutcome | undefined {
  const worded = wordings.find(([outcome, patterns]) =>
    patterns.some((pattern) => pattern.test(message) && !(SHARED.has(outcome) && pattern.test(asked))),
  )
  return worded?.[0]
}

function outcomeOfStatus(status: number): ProblemOutcome {
  // Redirects are not followed: the prompt goes to the host that was configured, or nowhere.
  if (status < 400 || status === 404 || status === 410) return 'model_not_found'
  if (status === 401 || status === 403) return 'authentication'
  if (status === 408) return 'timeout'
  if (status === 429) return 'rate_limited'
  if (MAY_HAVE_RUN.has(status)) return 'network_after_send'
  // 498 is Groq's lack of capacity.
  return status >= 498 || status === 409 || status === 425 ? 'overloaded' : 'invalid_request'
}
