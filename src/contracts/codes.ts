/**
 * Every way a request can be answered with a problem (RFC 9457), in one table: the HTTP status, a title that does not
 * change, and whether a client may send the same request again.
 */
export const PROBLEMS = {
  invalid_request: { status: 400, title: 'The request does not parse' },
  invalid_amount: { status: 400, title: 'The amount is not a decimal string with at most nine decimals' },
  invalid_instant: { status: 400, title: 'The instant cannot be looked back to' },
  unauthorized: { status: 401, title: 'No valid API key' },
  wallet_short: { status: 402, title: 'The wallet does not hold enough' },
  debt_outstanding: { status: 402, title: 'The project has a debt from an overage' },
  limit_short: { status: 402, title: 'A limit does not leave enough' },
  forbidden: { status: 403, title: 'This key may not do that' },
  not_found: { status: 404, title: 'No such thing' },
  not_root: { status: 409, title: 'Money enters a tree of runs at its root' },
  run_finished: { status: 409, title: 'The run is over' },
  not_external: { status: 409, title: 'The run is not an external one' },
  is_external: { status: 409, title: 'The run is an external one' },
  not_paused: { status: 409, title: 'The run is not paused' },
  waits_for_answer: { status: 409, title: 'The run waits for an answer' },
  no_question: { status: 409, title: 'No such question is open' },
  many_questions: { status: 409, title: 'Several questions are open' },
  already_reversed: { status: 409, title: 'The deposit is reversed already' },
  already_exists: { status: 409, title: 'It exists already' },
  not_lost: { status: 409, title: 'The attempt was not lost' },
  decided: { status: 409, title: 'It is decided already' },
  own_request: { status: 403, title: 'Another operator decides on this' },
  not_dead: { status: 409, title: 'It is no dead letter' },
  still_in_flight: { status: 409, title: 'It is still in flight' },
  last_operator: { status: 409, title: 'The organisation would have no operator key' },
  key_ended: { status: 409, title: 'The key is not one that goes on' },
  key_rotated: { status: 409, title: 'Another key takes over from this one already' },
  provider_in_use: { status: 409, title: 'Routes of the catalog name this provider' },
  provider_fixed: { status: 409, title: 'The provider is configured in the environment' },
  too_many: { status: 409, title: 'There are as many as there may be' },
  no_secrets_key: { status: 409, title: 'The installation has no key for secrets' },
  limit_retired: { status: 409, title: 'The limit is retired' },
  answer_not_stored: { status: 410, title: 'The answer is not stored any more' },
  changed_meanwhile: { status: 412, title: 'It was changed meanwhile' },
  payload_too_large: { status: 413, title: 'The request is too large' },
  unsupported_media_type: { status: 415, title: 'The body has a media type that is not taken here' },
  too_many_failures: { status: 429, title: 'Too many requests carried no good key' },
  unknown_agent: { status: 422, title: 'No such agent' },
  unknown_model: { status: 422, title: 'No such catalog model' },
  no_price: { status: 422, title: 'A route has no price' },
  no_route: { status: 422, title: 'No route can be paid from this envelope' },
  route_not_allowed: { status: 422, title: 'The constraints leave no route' },
  downgrade_not_cheaper: { status: 422, title: 'The downgrade offers nothing cheaper' },
  no_quote: { status: 422, title: 'No exchange rate is in force' },
  wrong_currency: { status: 422, title: 'The wallet has no such money' },
  no_pocket: { status: 422, title: 'The envelope has no such pocket' },
  unknown_step: { status: 422, title: 'The run has no such step' },
  not_a_choice: { status: 422, title: 'The answer is none of the choices' },
  wrong_lot: { status: 422, title: 'This money cannot be such a lot' },
  lot_expired: { status: 422, title: 'The lot would be expired from the start' },
  not_refundable: { status: 422, title: 'Credit is not refundable' },
  reference_mismatch: { status: 422, title: 'The external reference was used for something else' },
  idempotency_mismatch: { status: 422, title: 'The Idempotency-Key was used for another request' },
  internal: { status: 500, title: 'Something is wrong on our side' },
  overloaded: { status: 503, title: 'Overloaded' },
  clock_backwards: { status: 503, title: 'The clock of the database went backwards' },
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
