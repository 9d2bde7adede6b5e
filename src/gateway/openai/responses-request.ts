import type { ChatBody, ChatMessage, ImagePart, TextPart, ToolCall, ToolDefinition } from '#contracts/chat.ts'
import { openAiResponseRequestSchema, type OpenAiResponseRequest } from '#contracts/openai-responses.ts'
import { refuseMembers, type MemberRules } from '../member-rules.ts'
import { Refusal } from '../refusal.ts'

type Item = OpenAiResponseRequest['input'][number]
type OutputItem = Extract<Item, { type: 'function_call_output' }>
type Part = OutputItem['output'][number]

/** More than any model writes: a request that names no bound gets as much as its route gives. */
const UNBOUNDED = 10_000_000

const NOT_KEPT = 'Responses are not kept here: send store: false, and the whole conversation as input.'

const RULES: MemberRules = {
  /** They change what is billed, or what an answer is, or need an answer to be kept. */
  refused: {
    store: NOT_KEPT,
    previous_response_id: NOT_KEPT,
    conversation: NOT_KEPT,
    background: 'Responses in the background are not supported.',
    prompt: 'Prompts that the provider keeps are not supported.',
    context_management: 'Compaction by the provider is billed on its own, and is not supported.',
    moderation: 'Moderation by the provider is not supported.',
    image: 'Images as answers are not supported.',
    top_logprobs: 'Log probabilities are not supported.',
  },
  only: {
    truncation: ['disabled'],
    service_tier: ['auto', 'default'],
  },
}

/** What else a request may say: it is read below, or it changes no answer and no price. */
const KNOWN: ReadonlySet<string> = new Set([
  ...Object.keys(openAiResponseRequestSchema.shape),
  ...Object.keys(RULES.refused),
  ...Object.keys(RULES.only),
  'include',
  'max_tool_calls',
  'prompt_cache_key',
  'prompt_cache_options',
  'prompt_cache_retention',
  'safety_identifier',
  'stream_options',
  'user',
])

/** A response as the engine takes it. @throws Refusal for what cannot be asked or priced */
export function toResponseBody(request: OpenAiResponseRequest): ChatBody {
  refuseUnknown(request)
  const { input, instructions, tools, tool_choice, parallel_tool_calls, temperature, top_p } = request
  const format = request.text?.format
  const effort = request.reasoning?.effort
  return {
    messages: [...(instructions ? [{ role: 'system' as const, content: instructions }] : []), ...toMessages(input)],
    maxTokens: request.max_output_tokens ?? UNBOUNDED,
    ...(format?.type === 'json_schema' && { schema: { name: format.name, schema: format.schema } }),
    ...(tools && tools.length > 0 && { tools: tools.map(toTool) }),
    ...(tool_choice && { toolChoice: typeof tool_choice === 'string' ? tool_choice : { name: tool_choice.name } }),
    ...(parallel_tool_calls === false && { parallelToolCalls: false as const }),
    ...(temperature != null && { temperature }),
    ...(top_p != null && { topP: top_p }),
    ...(effort && { reasoningEffort: EFFORTS[effort] }),
  }
}

const EFFORTS = {
  none: 'minimal',
  minimal: 'minimal',
  low: 'low',
  medium: 'medium',
  high: 'high',
  xhigh: 'high',
  max: 'high',
} as const

function refuseUnknown(request: OpenAiResponseRequest): void {
  refuseMembers(request, RULES)
  const unknown = Object.keys(request).find((name) => !KNOWN.has(name) && request[name] != null)
  if (unknown !== undefined) {
    throw new Refusal('unsupported_parameter', `${unknown.slice(0, 100)} is not known here.`, { param: unknown })
  }
  const verbosity = request.text?.['verbosity']
  if (verbosity != null && verbosity !== 'medium') {
    throw new Refusal('unsupported_parameter', 'text.verbosity can be "medium" here.', { param: 'text.verbosity' })
  }
  const include = request['include']
  if (Array.isArray(include) && include.includes('message.output_text.logprobs')) {
    throw new Refusal('unsupported_parameter', 'Log probabilities are not supported.', { param: 'include' })
  }
}

/**
 * Items as the messages of a chat: what a model says and calls in one turn is one message, and images of outputs, which a
 * tool's message cannot hold, come after all outputs of that turn.
 */
function toMessages(items: readonly Item[]): readonly ChatMessage[] {
  const messages: ChatMessage[] = []
  let shown: ImagePart[] = []
  const show = () => {
    if (shown.length > 0) messages.push({ role: 'user', content: shown })
    shown = []
  }
  for (const item of items) {
    if (item.type === 'reasoning') continue
    if (item.type === 'function_call_output') {
      messages.push({ role: 'tool', toolCallId: item.call_id, content: outputOf(item) })
      shown.push(...item.output.map(toPart).filter((part) => part.type === 'image'))
      continue
    }
    show()
    if (item.type === 'function_call') {
      addToTurn(messages, '', [{ id: item.call_id, name: item.name, arguments: item.arguments }])
    } else if (item.role === 'assistant') {
      const said = item.content.map((part) => (part.type === 'refusal' ? part.refusal : part.text))
      addToTurn(messages, said.join('\n'), [])
    } else if (item.role === 'user') {
      messages.push({ role: 'user', content: contentOf(item.content) })
    } else {
      messages.push({ role: 'system', content: item.content.map((part) => part.text).join('\n') })
    }
  }
  show()
  return messages
}

function addToTurn(messages: ChatMessage[], text: string, calls: readonly ToolCall[]): void {
  const last = messages.at(-1)
  const turn = last?.role === 'assistant' ? last : undefined
  if (turn) messages.pop()
  const toolCalls = [...(turn?.toolCalls ?? []), ...calls]
  const content = [turn?.content ?? '', text].filter((each) => each !== '').join('\n')
  messages.push({ role: 'assistant', content, ...(toolCalls.length > 0 && { toolCalls }) })
}

function outputOf({ output }: OutputItem): string {
  return output.map((part) => (part.type === 'input_text' ? part.text : '[image]')).join('\n')
}

function contentOf(parts: readonly Part[]): string | readonly (TextPart | ImagePart)[] {
  const [first] = parts
  return parts.length === 1 && first?.type === 'input_text' ? first.text : parts.map(toPart)
}

function toPart(part: Part): TextPart | ImagePart {
  if (part.type === 'input_text') return { type: 'text', text: part.text }
  const { image_url: url, detail } = part
  return { type: 'image', url, ...(detail && { detail: detail === 'original' ? 'high' : detail }) }
}

function toTool({
  name,
  description,
  parameters,
}: NonNullable<OpenAiResponseRequest['tools']>[number]): ToolDefinition {
  return {
    name,
    ...(description != null && { description }),
    parameters: parameters ?? { type: 'object', properties: {} },
  }
}
