import { anthropicErrorSchema } from '#contracts/anthropic-answers.ts'
import { openAiErrorSchema } from '#contracts/openai-answers.ts'
import type { FastifySchema } from 'fastify'
import { z } from 'zod'
import { openAiCode } from './openai/errors.ts'
import { statusOf, type RefusalCode } from './refusal.ts'

/** Of any request, before anybody looks what it asks. */
const AT_THE_DOOR = [
  'invalid_api_key',
  'key_not_allowed',
  'envelope_closed',
  'busy',
  'internal',
  'unavailable',
] as const

const WITH_BODY = ['invalid_request', 'model_not_found', 'request_too_large'] as const

const OF_CALLS = [
  'unsupported_parameter',
  'context_too_long',
  'refused_by_provider',
  'content_filter',
  'insufficient_funds',
  'envelope_frozen',
  'request_in_flight',
  'idempotency_mismatch',
  'answer_not_stored',
  'no_route',
  'prompt_too_large',
  'repeat_not_allowed',
  'upstream_failed',
  'upstream_unavailable',
] as const

export const REFUSED = Object.freeze({
  look: AT_THE_DOOR,
  lookUp: [...AT_THE_DOOR, 'invalid_request', 'model_not_found'] as const,
  count: [...AT_THE_DOOR, ...WITH_BODY, 'unsupported_parameter'] as const,
  call: [...AT_THE_DOOR, ...WITH_BODY, ...OF_CALLS] as const,
})

const text = (description: string) => ({ type: 'string', description })

const SPENDING_HEADERS = Object.freeze({
  'x-purser-call-id': text('The call: `GET /api/v1/calls/{id}` tells its story.'),
  'x-purser-route': text('Which route served it.'),
  'x-purser-balance-class': text('Which balance paid.'),
  'x-purser-cost': text('What it cost, with its currency. Not of a stream: its last event says it.'),
  'x-purser-attempts': text('How many attempts it took.'),
  'x-purser-remaining': text('What its envelope can still pay, with its currency.'),
  'idempotency-replayed': text('`true`: the call was answered before, and cost nothing more.'),
  'x-purser-held': text('Of a stream: what is held, until its last event says what it cost.'),
})

const REFUSAL_HEADERS = Object.freeze({
  'x-should-retry': text('Whether the same request may be answered later.'),
  'retry-after': text('Seconds.'),
  'x-purser-call-id': text('The call, where there is one.'),
})

const idempotencyKey = {
  'idempotency-key': z.string().optional().meta({
    description: 'At most 255 visible ASCII characters. The same request with the same key is one call.',
    pattern: '^[\\x21-\\x7e]{1,255}$',
  }),
}
const anthropicVersion = { 'anthropic-version': z.string().optional() }

const SURFACES = Object.freeze({
  openai: { tag: 'OpenAI-compatible', error: openAiErrorSchema, codeOf: openAiCode, headers: {} },
  anthropic: {
    tag: 'Anthropic-compatible',
    error: anthropicErrorSchema,
    codeOf: (code: RefusalCode) => code,
    headers: anthropicVersion,
  },
  // The header of Anthropic's clients says in whose words it is answered.
  both: {
    tag: 'OpenAI-compatible',
    error: z.union([openAiErrorSchema, anthropicErrorSchema]),
    codeOf: openAiCode,
    headers: anthropicVersion,
  },
})

type Surface = keyof typeof SURFACES

interface DocumentedRoute {
  readonly surface: Surface
  readonly summary: string
  readonly description?: string
  readonly params?: z.ZodType
  readonly body?: z.ZodType
  readonly answer: z.ZodType
  /** An event of a stream (`eventsOf`); left out: nothing is streamed. */
  readonly event?: z.ZodType
  readonly refused: readonly RefusalCode[]
  /** Whether it holds money and spends it. */
  readonly isCall?: true
}

/** What the OpenAPI document says of a route. */
export function documentedAs(route: DocumentedRoute): FastifySchema {
  const { surface, summary, description, params, body, answer, event, refused, isCall } = route
  const { tag, headers } = SURFACES[surface]
  return {
    tags: [tag],
    summary,
    ...(description !== undefined && { description }),
    security: [{ key: [] }, { apiKey: [] }],
    ...(params && { params }),
    ...(body && { body }),
    headers: z.looseObject({ ...headers, ...(isCall && idempotencyKey) }),
    response: {
      200: {
        description: 'The answer',
        ...(isCall && { headers: SPENDING_HEADERS }),
        content: {
          'application/json': { schema: answer },
          ...(event && { 'text/event-stream': { schema: event } }),
        },
      },
      ...refusalsOf(refused, surface),
    },
  }
}

function refusalsOf(codes: readonly RefusalCode[], surface: Surface): Readonly<Record<number, object>> {
  const { error, codeOf } = SURFACES[surface]
  const byStatus = Map.groupBy(codes, statusOf)
  return Object.fromEntries(
    Array.from(byStatus, ([status, some]) => [
      status,
      {
        description: some.map((code) => `\`${codeOf(code)}\``).join(', '),
        headers: REFUSAL_HEADERS,
        content: { 'application/json': { schema: error } },
      },
    ]),
  )
}
