import type { ChatBody, ChatMessage, ImagePart, TextPart, ToolDefinition } from '#contracts/chat.ts'
import type { OpenAiChatRequest } from '#contracts/openai-chat.ts'
import { Refusal } from '../refusal.ts'

type Message = OpenAiChatRequest['messages'][number]
type Content = Extract<Message, { role: 'user' }>['content']

/** More than any model writes: a request that names no bound gets as much as its route gives. */
const UNBOUNDED = 10_000_000

/** Members that change what is billed, or what an answer is: they are refused rather than dropped. */
const REFUSED: Readonly<Record<string, string>> = Object.freeze({
  audio: 'Audio is not supported.',
  functions: 'functions is deprecated: send tools.',
  function_call: 'function_call is deprecated: send tool_choice.',
  logprobs: 'Log probabilities are not supported.',
  top_logprobs: 'Log probabilities are not supported.',
  prediction: 'Predicted outputs are billed by what they discard, and are not supported.',
  web_search_options: "The provider's own web search has a price of its own, and is not supported.",
})
/** What these members must say, where they are sent at all. */
const ONLY: Readonly<Record<string, readonly unknown[]>> = Object.freeze({
  modalities: [['text']],
  service_tier: ['auto', 'default'],
})

/** A chat as the engine takes it. @throws Refusal for what cannot be asked or priced */
export function toChatBody(request: OpenAiChatRequest): ChatBody {
  refuseUnpriced(request)
  const { messages, tools, tool_choice, response_format, temperature, top_p, stop, seed, reasoning_effort } = request
  const format = response_format?.type === 'json_schema' ? response_format.json_schema : undefined
  return {
    messages: messages.map(toMessage),
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? UNBOUNDED,
    ...(format && { schema: { name: format.name, schema: format.schema } }),
    ...(tools && tools.length > 0 && { tools: tools.map(toTool) }),
    ...(tool_choice && { toolChoice: typeof tool_choice === 'string' ? tool_choice : tool_choice.function }),
    ...(temperature != null && { temperature }),
    ...(top_p != null && { topP: top_p }),
    ...(stop != null && { stop: typeof stop === 'string' ? [stop] : stop }),
    ...(seed != null && { seed }),
    ...(reasoning_effort && { reasoningEffort: reasoning_effort }),
  }
}

function refuseUnpriced(request: OpenAiChatRequest): void {
  for (const [param, why] of Object.entries(REFUSED)) {
    const value = request[param]
    if (value != null && value !== false) throw new Refusal('unsupported_parameter', why, { param })
  }
  for (const [param, allowed] of Object.entries(ONLY)) {
    const value = request[param]
    if (value == null || allowed.some((each) => JSON.stringify(each) === JSON.stringify(value))) continue
    const words = allowed.map((each) => JSON.stringify(each)).join(' or ')
    throw new Refusal('unsupported_parameter', `${param} can be ${words} here.`, { param })
  }
}

function toMessage(message: Message): ChatMessage {
  switch (message.role) {
    case 'system':
    case 'developer':
      return { role: 'system', content: textOf(message.content) }
    case 'user':
      return {
        role: 'user',
        content: typeof message.content === 'string' ? message.content : message.content.map(toPart),
      }
    case 'assistant':
      return {
        role: 'assistant',
        content: message.content == null ? (message.refusal ?? '') : textOf(message.content),
        ...(message.tool_calls &&
          message.tool_calls.length > 0 && {
            toolCalls: message.tool_calls.map(({ id, function: { name, arguments: written } }) => ({
              id,
              name,
              arguments: written,
            })),
          }),
      }
    case 'tool':
      return { role: 'tool', toolCallId: message.tool_call_id, content: textOf(message.content) }
  }
}

function textOf(content: string | readonly { readonly text: string }[]): string {
  return typeof content === 'string' ? content : content.map(({ text }) => text).join('\n')
}

function toPart(part: Exclude<Content, string>[number]): TextPart | ImagePart {
  if (part.type === 'text') return { type: 'text', text: part.text }
  const { url, detail } = part.image_url
  return { type: 'image', url, ...(detail && { detail }) }
}

function toTool({
  function: { name, description, parameters },
}: NonNullable<OpenAiChatRequest['tools']>[number]): ToolDefinition {
  return {
    name,
    ...(description !== undefined && { description }),
    parameters: parameters ?? { type: 'object', properties: {} },
  }
}
