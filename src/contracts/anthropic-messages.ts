import { z } from 'zod'
import { OR_TEXT } from './documented.ts'
import { storableText } from './storable-text.ts'

/**
 * The request of Anthropic's Messages API, as far as it is understood here. Marks for its cache (`cache_control`) are
 * dropped wherever they stand: a route caches as it is set to. Source: Anthropic's API reference.
 */

const text = storableText
const MOST_MESSAGES = 100_000
const MOST_TOOLS = 1_000
const MOST_STOPS = 64
/** The least budget of tokens for thinking that the API takes. */
const LEAST_BUDGET = 1_024

const textBlock = z.object({ type: z.literal('text'), text })

const imageBlock = z.object({
  type: z.literal('image'),
  source: z.discriminatedUnion(
    'type',
    [
      z.object({
        type: z.literal('base64'),
        media_type: z.enum(['image/jpeg', 'image/png', 'image/gif', 'image/webp']),
        data: text.regex(/^[a-z0-9+/]+={0,2}$/i, 'is not base64'),
      }),
      z.object({ type: z.literal('url'), url: text.regex(/^https:\/\//, 'is not an https URL') }),
    ],
    'is neither base64 nor a url: uploaded files are not supported',
  ),
})

/** A text alone stands for one block of it. */
function blocksOf<Block extends z.ZodType>(block: Block, { least = 0 }: { readonly least?: number } = {}) {
  return z
    .preprocess(
      (content) => (typeof content === 'string' ? [{ type: 'text', text: content }] : content),
      z.array(block).min(least),
    )
    .meta(OR_TEXT)
}

const texts = blocksOf(textBlock)

const toolResultBlock = z.object({
  type: z.literal('tool_result'),
  tool_use_id: text.min(1),
  content: blocksOf(
    z.discriminatedUnion('type', [textBlock, imageBlock], 'is neither a text nor an image: others are not supported'),
  ).optional(),
  is_error: z.boolean().nullish(),
})

const toolUseBlock = z.object({
  type: z.literal('tool_use'),
  id: text.min(1),
  name: text.min(1),
  input: z.record(z.string(), z.unknown()),
})

const message = z.discriminatedUnion(
  'role',
  [
    z.object({
      role: z.literal('user'),
      content: blocksOf(
        z.discriminatedUnion(
          'type',
          [textBlock, imageBlock, toolResultBlock],
          'is not text, image or tool_result: documents and the like are not supported',
        ),
        { least: 1 },
      ),
    }),
    z.object({
      role: z.literal('assistant'),
      content: blocksOf(
        z.discriminatedUnion(
          'type',
          [
            textBlock,
            toolUseBlock,
            // What a model thought before is no part of a later prompt.
            z.object({ type: z.literal('thinking') }),
            z.object({ type: z.literal('redacted_thinking') }),
          ],
          'is not text, tool_use or thinking: what tools of the provider itself leave behind is not supported',
        ),
      ),
    }),
    z.object({ role: z.literal('system'), content: texts }),
  ],
  'has a role that is not user, assistant or system',
)

const tool = z.object({
  type: z.literal('custom', 'is not custom: tools of the provider itself are not supported').nullish(),
  name: z.string().regex(/^[\w-]{1,128}$/, 'is not 1 to 128 letters, digits, _ and -'),
  description: text.nullish(),
  input_schema: z.record(z.string(), z.unknown()),
  strict: z.boolean().optional(),
})

const disable_parallel_tool_use = z.boolean().optional()
const toolChoice = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.enum(['auto', 'any']), disable_parallel_tool_use }),
    z.object({ type: z.literal('tool'), name: text.min(1), disable_parallel_tool_use }),
    z.object({ type: z.literal('none') }),
  ],
  'is not auto, any, tool or none',
)

const thinking = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.literal('enabled'), budget_tokens: z.int().min(LEAST_BUDGET) }),
    z.object({ type: z.enum(['adaptive', 'between_tools', 'disabled']) }),
  ],
  'is not enabled, adaptive, between_tools or disabled',
)

const outputFormat = z.object({ type: z.literal('json_schema'), schema: z.record(z.string(), z.unknown()) })

const prompt = {
  model: text.min(1).max(100),
  messages: z.array(message).min(1).max(MOST_MESSAGES),
  system: texts.nullish(),
  tools: z.array(tool).max(MOST_TOOLS).nullish(),
  tool_choice: toolChoice.nullish(),
  thinking: thinking.nullish(),
  output_config: z
    .object({
      effort: z.enum(['low', 'medium', 'high', 'xhigh', 'max']).nullish(),
      format: outputFormat.nullish(),
    })
    .nullish(),
  /** As `output_config.format` was called in its beta. */
  output_format: outputFormat.nullish(),
}

/** Unknown members are kept: they go to routes that accept them. */
export const anthropicMessageRequestSchema = z
  .looseObject({
    ...prompt,
    max_tokens: z.int().min(1).max(10_000_000),
    stream: z.boolean().nullish(),
    stop_sequences: z.array(text.min(1)).max(MOST_STOPS).nullish(),
    temperature: z.number().min(0).max(1).nullish(),
    top_p: z.number().min(0).max(1).nullish(),
  })
  .meta({
    id: 'AnthropicMessageRequest',
    examples: [
      { model: 'research', max_tokens: 500, messages: [{ role: 'user', content: 'When was the mill built?' }] },
      {
        model: 'research',
        max_tokens: 500,
        stream: true,
        messages: [{ role: 'user', content: 'When was the mill built?' }],
      },
    ],
  })

export type AnthropicMessageRequest = z.infer<typeof anthropicMessageRequestSchema>

/** What of a request is its prompt; whatever else it says does not change the count. */
export const anthropicCountRequestSchema = z.object(prompt).meta({
  id: 'AnthropicCountRequest',
  examples: [{ model: 'research', messages: [{ role: 'user', content: 'When was the mill built?' }] }],
})

export type AnthropicPrompt = z.infer<typeof anthropicCountRequestSchema>
