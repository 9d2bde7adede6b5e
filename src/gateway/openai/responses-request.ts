import type { ChatBody, ChatMessage, ImagePart, TextPart, ToolCall } from '#contracts/chat.ts'
import { openAiResponseRequestSchema, type OpenAiResponseRequest } from '#contracts/openai-responses.ts'
import { furtherMembers, type MemberRules } from '../further-members.ts'
import { UNBOUNDED_TOKENS } from '../output-bound.ts'
import { Refusal } from '../refusal.ts'
import { toSchema } from './answer-schema.ts'
import { plainName, toolsOf } from './responses-tools.ts'

type Item = OpenAiResponseRequest['input'][number]
type OutputItem = Extract<Item, { type: 'function_call_output' }>
type Part = OutputItem['output'][number]

const NOT_KEPT = 'Responses are not kept here: send store: false, and the whole conversation as input.'

/** Handed on apart: agents send them always, and are to be answered by routes that do not take them, too. */
const HINTS = ['prompt_cache_key', 'prompt_cache_retention', 'safety_identifier', 'user'] as const

const RULES: MemberRules = {
  read: openAiResponseRequestSchema.shape,
  refused: {
    store: NOT_KEPT,
    previous_response_id: NOT_KEPT,
    conversation: NOT_KEPT,
    background: 'Responses in the background are not supported.',
    prompt: 'Prompts that the provider keeps are not supported.',
    context_management: 'Compaction by the provider is billed on its own, and is not supported.',
    moderation: 'Moderation by the provider is not supported.',
    image: 'Images as answers are not supported.',
  },
  only: {
    truncation: ['disabled'],
    service_tier: ['auto', 'default'],
  },
  dropped: [...HINTS, 'client_metadata', 'max_tool_calls', 'prompt_cache_options', 'stream_options'],
}

/** A response as the engine takes it. @throws Refusal for what cannot be asked or priced */
export function toResponseBody(request: OpenAiResponseRequest): ChatBody {
  refuseLogprobs(request.include)
  const parameters = { ...furtherMembers(request, RULES), ...parametersOfText(request.text) }
  const hints = hintsOf(request)
  const tools = toolsOf(request.tools)
  const { input, instructions, tool_choice, parallel_tool_calls, temperature, top_p } = request
  const format = request.text?.format
  const effort = request.reasoning?.effort
  return {
    messages: [...(instructions ? [{ role: 'system' as const, content: instructions }] : []), ...toMessages(input)],
    maxTokens: request.max_output_tokens ?? UNBOUNDED_TOKENS,
    ...(format?.type === 'json_schema' && { schema: toSchema(format) }),
    ...(tools.length > 0 && { tools }),
    ...(tool_choice && { toolChoice: typeof tool_choice === 'string' ? tool_choice : { name: tool_choice.name } }),
    ...(parallel_tool_calls === false && { parallelToolCalls: false as const }),
    ...(temperature != null && { temperature }),
    ...(top_p != null && { topP: top_p }),
    ...(effort && { reasoningEffort: effort }),
    ...(Object.keys(parameters).length > 0 && { parameters }),
    ...(Object.keys(hints).length > 0 && { hints }),
  }
}

function hintsOf(request: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    HINTS.flatMap((name) => {
      const value = request[name]
      return typeof value === 'string' ? [[name, value]] : []
    }),
  )
}

/** Under the names that chats have for them. */
function parametersOfText(text: OpenAiResponseRequest['text']): Readonly<Record<string, unknown>> {
  return {
    ...(text?.verbosity != null && { verbosity: text.verbosity }),
    ...(text?.format?.type === 'json_object' && { response_format: text.format }),
  }
}

/** All else that may be included is of what is not here, or is never given. */
function refuseLogprobs(include: OpenAiResponseRequest['include']): void {
  if (!include?.includes('message.output_text.logprobs')) return
  throw new Refusal('unsupported_parameter', 'Log probabilities are not supported.', { param: 'include' })
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
      addToTurn(messages, '', [{ id: item.call_id, name: plainName(item), arguments: item.arguments }])
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
