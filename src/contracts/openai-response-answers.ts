import { z } from 'zod'
import { spendingSchema } from './gateway-answers.ts'
import { openAiErrorSchema } from './openai-answers.ts'

/** What the gateway answers to `POST /v1/responses`. Source: OpenAI's API reference. */

const status = z.enum(['in_progress', 'completed', 'incomplete'])

const outputText = z.object({
  type: z.literal('output_text'),
  text: z.string(),
  annotations: z.array(z.never()),
  logprobs: z.array(z.never()),
})

const outputItem = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('message'),
    id: z.string(),
    status,
    role: z.literal('assistant'),
    content: z.array(outputText),
  }),
  z.object({
    type: z.literal('function_call'),
    id: z.string(),
    call_id: z.string(),
    name: z.string(),
    namespace: z.string().optional(),
    arguments: z.string(),
    status,
  }),
])

/** A member that says again what was asked. */
const asAsked = z.unknown().describe('As it was asked.')

export const openAiResponseSchema = z
  .object({
    id: z.string(),
    object: z.literal('response'),
    created_at: z.int(),
    status,
    background: z.literal(false),
    error: z.null(),
    incomplete_details: z.object({ reason: z.string() }).nullable(),
    instructions: z.string().nullable(),
    max_output_tokens: z.int().nullable(),
    metadata: z.record(z.string(), z.string()),
    model: z.string(),
    output: z.array(outputItem),
    parallel_tool_calls: z.boolean(),
    previous_response_id: z.null(),
    reasoning: z.object({ effort: z.string().nullable(), summary: z.null() }),
    service_tier: z.string(),
    store: z.literal(false),
    temperature: z.number(),
    text: z.object({ format: asAsked }),
    tool_choice: asAsked,
    tools: z.array(asAsked),
    top_p: z.number(),
    truncation: z.literal('disabled'),
    usage: z
      .object({
        input_tokens: z.int(),
        input_tokens_details: z.object({ cached_tokens: z.int(), cache_write_tokens: z.int() }),
        output_tokens: z.int(),
        output_tokens_details: z.object({ reasoning_tokens: z.int() }),
        total_tokens: z.int(),
      })
      .nullable(),
  })
  .meta({ id: 'OpenAiResponse' })

const sequence_number = z.int()
const output_index = z.int()
const place = { sequence_number, item_id: z.string(), output_index }
const placeOfText = { ...place, content_index: z.int() }
const noLogprobs = z.array(z.never())

export const openAiResponseEventSchema = z
  .discriminatedUnion('type', [
    z.object({
      type: z.enum(['response.created', 'response.in_progress']),
      sequence_number,
      response: openAiResponseSchema,
    }),
    z.object({
      type: z.enum(['response.completed', 'response.incomplete']),
      sequence_number,
      response: openAiResponseSchema,
      purser: spendingSchema,
    }),
    z.object({
      type: z.enum(['response.output_item.added', 'response.output_item.done']),
      sequence_number,
      output_index,
      item: outputItem,
    }),
    z.object({
      type: z.enum(['response.content_part.added', 'response.content_part.done']),
      ...placeOfText,
      part: outputText,
    }),
    z.object({
      type: z.literal('response.output_text.delta'),
      ...placeOfText,
      delta: z.string(),
      logprobs: noLogprobs,
    }),
    z.object({ type: z.literal('response.output_text.done'), ...placeOfText, text: z.string(), logprobs: noLogprobs }),
    z.object({ type: z.literal('response.function_call_arguments.delta'), ...place, delta: z.string() }),
    z.object({ type: z.literal('response.function_call_arguments.done'), ...place, arguments: z.string() }),
    z.object({ type: z.literal('error'), sequence_number, ...openAiErrorSchema.shape }),
  ])
  .meta({ id: 'OpenAiResponseEvent' })
