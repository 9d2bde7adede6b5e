import { moreOf, type Refusal, type RefusalCode } from '../refusal.ts'

/** OpenAI's own words for what its clients look at. */
const TYPES: Readonly<Partial<Record<RefusalCode, string>>> = Object.freeze({
  insufficient_funds: 'insufficient_quota',
  invalid_api_key: 'authentication_error',
  key_not_allowed: 'permission_error',
  envelope_closed: 'permission_error',
  busy: 'rate_limit_error',
  internal: 'server_error',
  unavailable: 'server_error',
  upstream_failed: 'server_error',
  upstream_unavailable: 'server_error',
})
const CODES: Readonly<Partial<Record<RefusalCode, string>>> = Object.freeze({
  insufficient_funds: 'insufficient_quota',
  busy: 'rate_limit_exceeded',
  context_too_long: 'context_length_exceeded',
})

export function openAiCode(code: RefusalCode): string {
  return CODES[code] ?? code
}

/** An error in OpenAI's shape, with what else is known of it beside. */
export function toOpenAiError(refusal: Refusal): object {
  const { code, message, remedy, param } = refusal
  return {
    error: {
      message: remedy === undefined ? message : `${message} ${remedy}`,
      type: TYPES[code] ?? 'invalid_request_error',
      param: param ?? null,
      code: openAiCode(code),
      ...moreOf(refusal),
    },
  }
}
