import { moreOf, type Refusal, type RefusalCode } from '../refusal.ts'

/** Anthropic's own words for what its clients look at. */
const TYPES = {
  invalid_request: 'invalid_request_error',
  unsupported_parameter: 'invalid_request_error',
  no_route: 'invalid_request_error',
  prompt_too_large: 'invalid_request_error',
  context_too_long: 'invalid_request_error',
  idempotency_mismatch: 'invalid_request_error',
  refused_by_provider: 'invalid_request_error',
  content_filter: 'invalid_request_error',
  invalid_api_key: 'authentication_error',
  insufficient_funds: 'billing_error',
  key_not_allowed: 'permission_error',
  envelope_closed: 'permission_error',
  model_not_found: 'not_found_error',
  not_found: 'not_found_error',
  envelope_frozen: 'conflict_error',
  request_in_flight: 'conflict_error',
  answer_not_stored: 'not_found_error',
  request_too_large: 'request_too_large',
  busy: 'rate_limit_error',
  client_gone: 'api_error',
  internal: 'api_error',
  repeat_not_allowed: 'api_error',
  upstream_failed: 'api_error',
  upstream_unavailable: 'overloaded_error',
  unavailable: 'overloaded_error',
} as const satisfies Record<RefusalCode, string>

/** Coding agents look for these words, and then shorten what they send. */
const TOO_LONG = 'prompt is too long'

/** An error in Anthropic's shape, with what else is known of it beside. */
export function toAnthropicError(refusal: Refusal, requestId: string | null): object {
  const { code, remedy, param } = refusal
  const message = code === 'context_too_long' ? `${TOO_LONG}: ${refusal.message}` : refusal.message
  return {
    type: 'error',
    error: {
      type: TYPES[code],
      message: remedy === undefined ? message : `${message} ${remedy}`,
      // Where Anthropic's clients look for the reason within the type.
      details: { error_code: code },
      ...(param !== undefined && { param }),
      ...moreOf(refusal),
    },
    request_id: requestId,
  }
}
