import { z } from 'zod'
import { OR_TEXT, TYPE_OPTIONAL } from './documented.ts'
import { REASONING_EFFORTS } from './names.ts'
import { storableText } from './storable-text.ts'

/** The request of OpenAI's responses, as far as it is understood here. Source: OpenAI's API reference. */

const text = storableText
const MOST_ITEMS = 10_000
const MOST_TOOLS = 128
const MOST_INCLUDED = 64
const toolName = z.string().regex(/^[\w-]{1,64}$/, 'is not 1 to 64 letters, digits, _ and -')

const inputText = z.object({ type: z.literal('input_text'), text })
const outputText = z.object({ type: z.literal('output_text'), text })
const refusal = z.object({ type: z.literal('refusal'), refusal: text })
const inputImage = z.object({
  type: z.literal('input_image'),
  image_url: text.regex(/^(https:\/\/|data:image\/)/, 'is neither an https URL nor a data URL of an image'),
  detail: z.enum(['low', 'high', 'auto', 'original']).nullish(),
})

const TEXT_OR_IMAGE = 'is neither input_text nor input_image: files and audio are not supported'
const textOrImage = z.discriminatedUnion('type', [inputText, inputImage], TEXT_OR_IMAGE)

/** A text alone stands for one part of it. */
function partsOf<Part extends z.ZodType>(part: Part) {
  return z
    .preprocess(
      (content) => (typeof content === 'string' ? [{ type: 'input_text', text: content }] : content),
      z.array(part),
    )
    .meta(OR_TEXT)
}

const type = z.literal('message')
const message = z.discriminatedUnion(
  'role',
  [
    z.object({ type, role: z.literal('user'), content: partsOf(textOrImage) }).meta(TYPE_OPTIONAL),
    z
      .object({
        type,
        role: z.enum(['system', 'developer']),
        content: partsOf(z.discriminatedUnion('type', [inputText], 'is not input_text')),
      })
      .meta(TYPE_OPTIONAL),
    z
      .object({
        type,
        role: z.literal('assistant'),
        content: partsOf(
          z.discriminatedUnion('type', [inputText, outputText, refusal], 'is neither output_text nor refusal'),
        ),
      })
      .meta(TYPE_OPTIONAL),
  ],
  'is not user, system, developer or assistant',
)

const functionCall = z.object({
  type: z.literal('function_call'),
  call_id: text.min(1),
  name: text.min(1),
  namespace: text.min(1).optional(),
  arguments: text,
})

const functionCallOutput = z.object({
  type: z.literal('function_call_output'),
  call_id: text.min(1),
  output: partsOf(textOrImage),
})

/** What a model thought before is no part of a later prompt. */
const reasoningItem = z.object({ type: z.literal('reasoning') })

/** A message may leave out that it is one. */
const item = z.preprocess(
  (value) =>
    typeof value === 'object' && value !== null && 'role' in value && !('type' in value)
      ? { ...value, type: 'message' }
      : value,
  z.discriminatedUnion(
    'type',
    [message, functionCall, functionCallOutput, reasoningItem],
    'is not message, function_call, function_call_output or reasoning: nothing is kept here that could be referred to, and what tools of the provider itself leave behind is not supported',
  ),
)

const functionTool = z.object({
  type: z.literal('function', 'is not function'),
  name: toolName,
  description: text.nullish(),
  parameters: z.record(z.string(), z.unknown()).nullish(),
  strict: z.boolean().nullish(),
})

/** Functions under one name, as coding agents group theirs. */
const namespaceTool = z.object({
  type: z.literal('namespace'),
  name: toolName,
  description: text.nullish(),
  tools: z.array(functionTool).max(MOST_TOOLS),
})

const tool = z.discriminatedUnion(
  'type',
  [functionTool, namespaceTool],
  'is neither function nor namespace: tools of the provider itself, and tools that take free text, are not supported',
)

const toolChoice = z.union(
  [z.enum(['none', 'auto', 'required']), z.object({ type: z.literal('function'), name: toolName })],
  'is neither none, auto, required nor a function',
)

const format = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.enum(['text', 'json_object']) }),
    z.object({
      type: z.literal('json_schema'),
      name: toolName,
      description: text.nullish(),
      schema: z.record(z.string(), z.unknown()),
      strict: z.boolean().nullish(),
    }),
  ],
  'is not text, json_object or json_schema',
)

/** Unknown members are kept: they go to routes that accept them. */
export const openAiResponseRequestSchema = z
  .looseObject({
    model: text.min(1).max(100),
    input: z
      .preprocess(
        (input) => (typeof input === 'string' ? [{ role: 'user', content: input }] : input),
        z.array(item, 'is neither a text nor a list of items').min(1).max(MOST_ITEMS),
      )
      .meta(OR_TEXT),
    instructions: text.nullish(),
    max_output_tokens: z.int().min(1).max(10_000_000).nullish(),
    stream: z.boolean().nullish(),
    tools: z.array(tool).max(MOST_TOOLS).nullish(),
    tool_choice: toolChoice.nullish(),
    parallel_tool_calls: z.boolean().nullish(),
    text: z.object({ format: format.nullish(), verbosity: z.enum(['low', 'medium', 'high']).nullish() }).nullish(),
    reasoning: z
      .object({
        effort: z.enum(REASONING_EFFORTS).nullish(),
        mode: z.literal('standard', 'is not standard: other modes are not supported').nullish(),
      })
      .nullish(),
    include: z.array(z.string()).max(MOST_INCLUDED).nullish(),
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().min(0).max(1).nullish(),
    metadata: z.record(z.string().max(64), text.max(512)).nullish(),
  })
  .meta({
    id: 'OpenAiResponseRequest',
    examples: [
      { model: 'research', input: 'When was the mill built?' },
      { model: 'research', stream: true, input: [{ role: 'user', content: 'When was the mill built?' }] },
    ],
  })

export type OpenAiResponseRequest = z.infer<typeof openAiResponseRequestSchema>
