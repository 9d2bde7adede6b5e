import type { RefusalKind } from './faults.ts'

/** What went wrong, in the terms of OpenAI's error object; other dialects say it in their own. */
export interface WireError {
  readonly status: number
  readonly message: string
  readonly type: string
  readonly code: string | null
  readonly param: string | null
}

export const wrongKey: WireError = {
  status: 401,
  message: 'Incorrect API key provided.',
  type: 'invalid_request_error',
  code: 'invalid_api_key',
  param: null,
}

export const refusals: Readonly<Record<RefusalKind, WireError>> = {
  invalid: invalidRequest('The request is invalid, because a fault rule says so.', null),
  contextLength: contextTooLong(null),
  promptFiltered: {
    status: 400,
    message: 'The prompt was filtered by our content management policy. Please modify your prompt and retry.',
    type: 'invalid_request_error',
    code: 'content_filter',
    param: 'prompt',
  },
  wrongKey,
  paymentRequired: {
    status: 402,
    message: 'Insufficient credits. Add more to your account and retry.',
    type: 'billing_error',
    code: 'insufficient_credits',
    param: null,
  },
  modelGone: unknownModel('of this request'),
  rateLimit: {
    status: 429,
    message: 'Rate limit reached for requests. Please try again later.',
    type: 'requests',
    code: 'rate_limit_exceeded',
    param: null,
  },
  quotaGone: {
    status: 429,
    message: 'You exceeded your current quota, please check your plan and billing details.',
    type: 'insufficient_quota',
    code: 'insufficient_quota',
    param: null,
  },
  serverError: {
    status: 500,
    message: 'The server had an error while processing your request. Sorry about that!',
    type: 'server_error',
    code: null,
    param: null,
  },
  badGateway: {
    status: 502,
    message: 'The upstream did not answer.',
    type: 'server_error',
    code: null,
    param: null,
  },
  overloaded: {
    status: 503,
    message: 'The engine is currently overloaded, please try again later.',
    type: 'server_error',
    code: 'overloaded',
    param: null,
  },
  siteOverloaded: {
    status: 529,
    message: 'Overloaded',
    type: 'overloaded_error',
    code: 'overloaded',
    param: null,
  },
}

export function contextTooLong(limits: { readonly allowed: number; readonly asked: number } | null): WireError {
  const detail =
    limits === null ? '' : ` It allows ${limits.allowed} tokens; prompt and answer would take ${limits.asked}.`
  return {
    status: 400,
    message: `This model's maximum context length is exceeded.${detail} Please reduce the length of the messages.`,
    type: 'invalid_request_error',
    code: 'context_length_exceeded',
    param: 'messages',
  }
}

export function invalidRequest(message: string, param: string | null): WireError {
  return { status: 400, message, type: 'invalid_request_error', code: null, param }
}

export function unknownModel(model: string, reason = ''): WireError {
  return {
    status: 404,
    message: `The model \`${model}\` does not exist or you do not have access to it.${reason}`,
    type: 'invalid_request_error',
    code: 'model_not_found',
    param: null,
  }
}

export function unknownUrl(method: string, path: string): WireError {
  return {
    status: 404,
    message: `Unknown request URL: ${method} ${path}`,
    type: 'invalid_request_error',
    code: 'unknown_url',
    param: null,
  }
}

export function unknownGeneration(id: string): WireError {
  return {
    status: 404,
    message: `Generation ${id} not found: it is not known yet, or never began.`,
    type: 'invalid_request_error',
    code: 'generation_not_found',
    param: 'id',
  }
}
