import { z } from 'zod'
import { REASONING_EFFORTS } from './names.ts'
import { storableText } from './storable-text.ts'

/** The request of OpenAI's chat completions, as far as it is understood here. Source: OpenAI's API reference. */

const text = storableText
const MOST_MESSAGES = 10_000
const MOST_TOOLS = 128
const MOST_STOPS = 4
/** As many answers to one prompt. */
const MOST_CHOICES = 8
/** Of who speaks, as OpenAI takes it. */
const speaker = text.regex(/^[^\s<|\\/>]{1,64}$/, 'is not 1 to 64 characters without blanks and < | \\ / >').nullish()
/** A name of a function or a schema. */
const toolName = z.string().regex(/^[\w-]{1,64}$/, 'is not 1 to 64 letters, digits, _ and -')

const textPart = z.object({ type: z.literal('text'), text })
const refusalPart = z.object({ type: z.literal('refusal'), refusal: text })
const imagePart = z.object({
  type: z.literal('image_url'),
  image_url: z.object({
    url: text.regex(/^(https:\/\/|data:image\/)/, 'is neither an https URL nor a data URL of an image'),
    detail: z.enum(['low', 'high', 'auto']).nullish(),
  }),
})

const onlyText = z.union([text, z.array(textPart).min(1)], 'is neither a text nor a list of texts')
const textAndRefusals = z.union(
  [text, z.array(z.discriminatedUnion('type', [textPart, refusalPart])).min(1)],
  'is neither a text nor a list of texts and refusals',
)
const textAndImages = z.union(
  [text, z.array(z.discriminatedUnion('type', [textPart, imagePart])).min(1)],
  'is neither a text nor a list of texts and images: audio and files are not supported',
)

const toolCall = z.object({
  id: text.min(1),
  type: z.literal('function', 'is not function: calls of tools that take free text are not supported'),
  function: z.object({ name: text.min(1), arguments: text }),
})

const message = z.discriminatedUnion(
  'role',
  [
    z.object({ role: z.enum(['system', 'developer']), name: speaker, content: onlyText }),
    z.object({ role: z.literal('user'), name: speaker, content: textAndImages }),
    z.object({
      role: z.literal('assistant'),
      name: speaker,
      content: textAndRefusals.nullish(),
      refusal: text.nullish(),
      tool_calls: z.array(toolCall).max(MOST_TOOLS).nullish(),
      // What these say would be lost, and the model would answer something else.
      function_call: z.null('is deprecated: send tool_calls').optional(),
      audio: z.null('is not supported').optional(),
    }),
    z.object({ role: z.literal('tool'), tool_call_id: text.min(1), content: onlyText }),
  ],
  'has a role that is not system, developer, user, assistant or tool',
)

const tool = z.object({
  type: z.literal('function', 'is not function: tools of the provider itself are not supported'),
  function: z.object({
    name: toolName,
    description: text.nullish(),
    parameters: z.record(z.string(), z.unknown()).nullish(),
    strict: z.boolean().nullish(),
  }),
})

const toolChoice = z.union(
  [
    z.enum(['none', 'auto', 'required']),
    z.object({ type: z.literal('function'), function: z.object({ name: toolName }) }),
  ],
  'is neither none, auto, required nor a function',
)

const responseFormat = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.literal('text') }),
    z.object({ type: z.literal('json_object') }),
    z.object({
      type: z.literal('json_schema'),
      json_schema: z.object({
        name: toolName,
        description: text.nullish(),
        schema: z.record(z.string(), z.unknown()),
        strict: z.boolean().nullish(),
      }),
    }),
  ],
  'is neither text, json_object nor json_schema',
)

const stopText = text.min(1)
const stops = z.union(
  [stopText, z.array(stopText).max(MOST_STOPS)],
  `is neither a text nor a list of ${MOST_STOPS} texts at most, none of them empty`,
)

const positive = z.int().min(1).max(10_000_000)

/** Unknown members are kept: they go to routes that accept them. */
export const openAiChatRequestSchema = z
  .looseObject({
    model: text.min(1).max(100),
    messages: z.array(message).min(1).max(MOST_MESSAGES),
    max_tokens: positive.nullish(),
    max_completion_tokens: positive.nullish(),
    n: z.int().min(1).max(MOST_CHOICES).nullish(),
    stream: z.boolean().nullish(),
    stream_options: z.looseObject({ include_usage: z.boolean().optional() }).nullish(),
    tools: z.array(tool).max(MOST_TOOLS).nullish(),
    tool_choice: toolChoice.nullish(),
    parallel_tool_calls: z.boolean().nullish(),
    response_format: responseFormat.nullish(),
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().min(0).max(1).nullish(),
    stop: stops.nullish(),
    seed: z.int().nullish(),
    reasoning_effort: z.enum(REASONING_EFFORTS).nullish(),
  })
  .meta({
    id: 'OpenAiChatRequest',
    examples: [
      { model: 'research', messages: [{ role: 'user', content: 'When was the mill built?' }] },
      { model: 'research', stream: true, messages: [{ role: 'user', content: 'When was the mill built?' }] },
    ],
  })

export type OpenAiChatRequest = z.infer<typeof openAiChatRequestSchema>
