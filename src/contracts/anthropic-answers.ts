import { z } from 'zod'
import { refusalMembers, spendingSchema } from './gateway-answers.ts'

/** What the gateway answers clients of Anthropic, in Anthropic's shapes. Source: Anthropic's API reference. */

export const anthropicErrorSchema = z
  .object({
    type: z.literal('error'),
    error: z.object({
      type: z.string(),
      message: z.string(),
      details: z.object({ error_code: z.string() }),
      param: z.string().optional(),
      ...refusalMembers,
    }),
    request_id: z.string().nullable(),
  })
  .meta({ id: 'AnthropicError' })

const tokens = {
  input_tokens: z.int(),
  cache_read_input_tokens: z.int(),
  cache_creation_input_tokens: z.int(),
  output_tokens: z.int(),
  output_tokens_details: z.object({ thinking_tokens: z.int() }),
  server_tool_use: z.null(),
}

const usage = z.object({
  ...tokens,
  cache_creation: z.null(),
  inference_geo: z.null(),
  service_tier: z.string(),
  speed: z.null(),
})

const textBlock = z.object({ type: z.literal('text'), text: z.string(), citations: z.null() })
const toolUseBlock = z.object({
  type: z.literal('tool_use'),
  id: z.string(),
  name: z.string(),
  input: z.record(z.string(), z.unknown()),
  caller: z.object({ type: z.literal('direct') }),
})
const block = z.discriminatedUnion('type', [textBlock, toolUseBlock])

const end = {
  stop_reason: z.string().nullable(),
  stop_sequence: z.string().nullable(),
  stop_details: z.null(),
}

export const anthropicMessageSchema = z
  .object({
    id: z.string(),
    type: z.literal('message'),
    role: z.literal('assistant'),
    model: z.string(),
    container: z.null(),
    diagnostics: z.null(),
    content: z.array(block),
    ...end,
    usage,
  })
  .meta({ id: 'AnthropicMessage' })

export const anthropicEventSchema = z
  .discriminatedUnion('type', [
    z.object({ type: z.literal('message_start'), message: anthropicMessageSchema }),
    z.object({ type: z.literal('ping') }),
    z.object({ type: z.literal('content_block_start'), index: z.int(), content_block: block }),
    z.object({
      type: z.literal('content_block_delta'),
      index: z.int(),
      delta: z.discriminatedUnion('type', [
        z.object({ type: z.literal('text_delta'), text: z.string() }),
        z.object({ type: z.literal('input_json_delta'), partial_json: z.string() }),
      ]),
    }),
    z.object({ type: z.literal('content_block_stop'), index: z.int() }),
    z.object({
      type: z.literal('message_delta'),
      delta: z.object({ ...end, container: z.null() }),
      usage: z.object(tokens),
      purser: spendingSchema,
    }),
    z.object({ type: z.literal('message_stop') }),
    anthropicErrorSchema,
  ])
  .meta({ id: 'AnthropicEvent' })

export const anthropicCountSchema = z.object({ input_tokens: z.int() }).meta({ id: 'AnthropicCount' })

export const anthropicModelSchema = z
  .object({
    type: z.literal('model'),
    id: z.string(),
    display_name: z.string(),
    created_at: z.iso.datetime(),
    max_input_tokens: z.int(),
    max_tokens: z.int(),
    capabilities: z.null(),
    lifecycle: z.literal('active'),
    deprecated_at: z.null(),
    retires_at: z.null(),
    line: z.null(),
  })
  .meta({ id: 'AnthropicModel' })

export const anthropicModelPageSchema = z
  .object({
    data: z.array(anthropicModelSchema),
    has_more: z.boolean(),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
  })
  .meta({ id: 'AnthropicModelPage' })
