/** What a client is told about money that is not there: amounts are decimal strings, or counts of tokens or calls. */
export interface RefusalFigures {
  /** What bound it, in words: `direct pocket`, `key limit per day`. */
  readonly limit: string
  readonly currency: string | null
  readonly needed: string
  readonly spent: string | null
  readonly held: string | null
  readonly remaining: string
  readonly resetsAt: string | null
}

export type RefusalCode =
  | 'invalid_request'
  | 'unsupported_parameter'
  | 'invalid_api_key'
  | 'key_not_allowed'
  | 'model_not_found'
  | 'no_route'
  | 'prompt_too_large'
  | 'context_too_long'
  | 'insufficient_funds'
  | 'envelope_frozen'
  | 'envelope_closed'
  | 'request_in_flight'
  | 'idempotency_mismatch'
  | 'answer_not_stored'
  | 'request_too_large'
  | 'busy'
  | 'refused_by_provider'
  | 'content_filter'
  | 'repeat_not_allowed'
  | 'upstream_failed'
  | 'upstream_unavailable'
  | 'client_gone'
  | 'internal'
  | 'unavailable'
  | 'not_found'

/** The clients of OpenAI and Anthropic follow a Retry-After up to a minute. */
const MOST_PATIENCE_SECONDS = 60

interface Rule {
  readonly status: number
  /** Whether the same request may be answered later: clients that look for it do not repeat the others. */
  readonly again: boolean
}

/** One row for everything that the gateway answers in place of an answer. */
const REFUSALS = {
  invalid_request: { status: 400, again: false },
  unsupported_parameter: { status: 400, again: false },
  invalid_api_key: { status: 401, again: false },
  insufficient_funds: { status: 402, again: false },
  key_not_allowed: { status: 403, again: false },
  envelope_closed: { status: 403, again: false },
  model_not_found: { status: 404, again: false },
  not_found: { status: 404, again: false },
  envelope_frozen: { status: 409, again: false },
  request_in_flight: { status: 409, again: true },
  answer_not_stored: { status: 410, again: false },
  request_too_large: { status: 413, again: false },
  no_route: { status: 422, again: false },
  prompt_too_large: { status: 422, again: false },
  idempotency_mismatch: { status: 422, again: false },
  context_too_long: { status: 400, again: false },
  refused_by_provider: { status: 400, again: false },
  content_filter: { status: 400, again: false },
  busy: { status: 429, again: true },
  client_gone: { status: 499, again: true },
  internal: { status: 500, again: false },
  repeat_not_allowed: { status: 502, again: false },
  upstream_failed: { status: 502, again: false },
  upstream_unavailable: { status: 503, again: true },
  unavailable: { status: 503, again: true },
} as const satisfies Record<RefusalCode, Rule>

export function statusOf(code: RefusalCode): number {
  return REFUSALS[code].status
}

/** Why a request is not answered, in no client's own shape. */
export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly code: RefusalCode
  readonly remedy: string | undefined
  readonly callId: string | undefined
  readonly retryAfterSeconds: number | undefined
  readonly figures: RefusalFigures | undefined
  /** The member of the request that is wrong. */
  readonly param: string | undefined

  constructor(
    code: RefusalCode,
    message: string,
    more: {
      readonly remedy?: string
      readonly callId?: string
      readonly retryAfterSeconds?: number
      readonly figures?: RefusalFigures
      readonly param?: string
    } = {},
  ) {
    super(message)
    this.code = code
    this.remedy = more.remedy
    this.callId = more.callId
    this.retryAfterSeconds = more.retryAfterSeconds
    this.figures = more.figures
    this.param = more.param
  }

  get status(): number {
    return statusOf(this.code)
  }

  /** By itself, before anybody looks: clients wait no longer than this, and repeat at once what they are told to. */
  get isWorthRepeating(): boolean {
    return REFUSALS[this.code].again && (this.retryAfterSeconds ?? 0) <= MOST_PATIENCE_SECONDS
  }
}

/** What is said beside the words of each client's own error: the call, the figures of the money, what to do. */
export function moreOf({ remedy, callId, figures }: Refusal): object {
  return {
    ...(remedy !== undefined && { remedy }),
    ...(callId !== undefined && { call_id: callId }),
    ...(figures && {
      limit: figures.limit,
      currency: figures.currency,
      needed: figures.needed,
      spent: figures.spent,
      held: figures.held,
      remaining: figures.remaining,
      resets_at: figures.resetsAt,
    }),
  }
}
