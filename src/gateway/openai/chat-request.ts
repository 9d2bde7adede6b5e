import type { ChatBody, ChatMessage, ImagePart, TextPart, ToolDefinition } from '#contracts/chat.ts'
import { openAiChatRequestSchema, type OpenAiChatRequest } from '#contracts/openai-chat.ts'
import { furtherMembers, type MemberRules } from '../further-members.ts'
import { UNBOUNDED_TOKENS } from '../output-bound.ts'
import { toSchema } from './answer-schema.ts'

type Message = OpenAiChatRequest['messages'][number]
type Content = Extract<Message, { role: 'user' }>['content']

const RULES: MemberRules = {
  read: openAiChatRequestSchema.shape,
  refused: {},
  only: {
    modalities: [['text']],
    service_tier: ['auto', 'default'],
    store: [false],
  },
  dropped: [],
}

/** A chat as the engine takes it. @throws Refusal for what cannot be asked or priced */
export function toChatBody(request: OpenAiChatRequest): ChatBody {
  const { messages, tools, tool_choice, response_format, temperature, top_p, stop, seed, reasoning_effort, n } = request
  const format = response_format?.type === 'json_schema' ? response_format.json_schema : undefined
  const isJson = response_format?.type === 'json_object'
  const parameters = { ...furtherMembers(request, RULES), ...(isJson && { response_format: { type: 'json_object' } }) }
  return {
    messages: messages.map(toMessage),
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? UNBOUNDED_TOKENS,
    ...(n != null && n > 1 && { choices: n }),
    ...(format && { schema: toSchema(format) }),
    ...(tools && tools.length > 0 && { tools: tools.map(toTool) }),
    ...(request.parallel_tool_calls === false && { parallelToolCalls: false }),
    ...(tool_choice && { toolChoice: typeof tool_choice === 'string' ? tool_choice : tool_choice.function }),
    ...(temperature != null && { temperature }),
    ...(top_p != null && { topP: top_p }),
    ...(stop != null && { stop: typeof stop === 'string' ? [stop] : stop }),
    ...(seed != null && { seed }),
    ...(reasoning_effort && { reasoningEffort: reasoning_effort }),
    ...(Object.keys(parameters).length > 0 && { parameters }),
  }
}

function toMessage(message: Message): ChatMessage {
  switch (message.role) {
    case 'system':
    case 'developer':
      return { role: 'system', ...nameOf(message), content: textOf(message.content) }
    case 'user':
      return {
        role: 'user',
        ...nameOf(message),
        content: typeof message.content === 'string' ? message.content : message.content.map(toPart),
      }
    case 'assistant':
      return {
        role: 'assistant',
        ...nameOf(message),
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

function nameOf({ name }: { readonly name?: string | null | undefined }): { readonly name?: string } {
  return name == null ? {} : { name }
}

type Said = { readonly text: string } | { readonly refusal: string }

function textOf(content: string | readonly Said[]): string {
  if (typeof content === 'string') return content
  return content.map((part) => ('text' in part ? part.text : part.refusal)).join('\n')
}

function toPart(part: Exclude<Content, string>[number]): TextPart | ImagePart {
  if (part.type === 'text') return { type: 'text', text: part.text }
  const { url, detail } = part.image_url
  return { type: 'image', url, ...(detail && { detail }) }
}

function toTool({
  function: { name, description, parameters, strict },
}: NonNullable<OpenAiChatRequest['tools']>[number]): ToolDefinition {
  return {
    name,
    ...(description != null && { description }),
    parameters: parameters ?? { type: 'object', properties: {} },
    ...(strict != null && { strict }),
  }
}
