/**
 * Every way a request can be answered with a problem (RFC 9457), in one table: the HTTP status, a title that does not
 * change, and whether a client may send the same request again.
 */
export const PROBLEMS = {
  invalid_request: { status: 400, title: 'The request does not parse' },
  invalid_amount: { status: 400, title: 'The amount is not a decimal string with at most nine decimals' },
  unauthorized: { status: 401, title: 'No valid API key' },
  wallet_short: { status: 402, title: 'The wallet does not hold enough' },
  debt_outstanding: { status: 402, title: 'The project has a debt from an overage' },
  forbidden: { status: 403, title: 'This key may not do that' },
  not_found: { status: 404, title: 'No such thing' },
  run_finished: { status: 409, title: 'The run is over' },
  already_exists: { status: 409, title: 'It exists already' },
  payload_too_large: { status: 413, title: 'The request is too large' },
  unsupported_media_type: { status: 415, title: 'The body is not JSON' },
  unknown_agent: { status: 422, title: 'No such agent' },
  unknown_model: { status: 422, title: 'No such catalog model' },
  no_price: { status: 422, title: 'A route has no price' },
  no_route: { status: 422, title: 'No route can be paid from this envelope' },
  reference_mismatch: { status: 422, title: 'The external reference was used for something else' },
  idempotency_mismatch: { status: 422, title: 'The Idempotency-Key was used for another request' },
  internal: { status: 500, title: 'Something is wrong on our side' },
  overloaded: { status: 503, title: 'Overloaded' },
  store_unavailable: { status: 503, title: 'The database cannot be reached' },
} as const

export type ProblemCode = keyof typeof PROBLEMS

/** A failure with a code of the table above. `detail` says what is wrong, `remedy` what to do about it. */
export class Problem extends Error {
  override readonly name = 'Problem'
  readonly code: ProblemCode
  readonly remedy: string | undefined
  readonly extra: Readonly<Record<string, unknown>>

  constructor(
    code: ProblemCode,
    detail: string,
    options: { readonly remedy?: string; readonly extra?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(detail)
    this.code = code
    this.remedy = options.remedy
    this.extra = options.extra ?? {}
  }
}
