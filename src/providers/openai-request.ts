import type { ChatMessage } from '#contracts/chat.ts'
import type { MaxTokensField } from '#contracts/names.ts'
import type {
  ChatCompletionContentPart,
  ChatCompletionCreateParams,
  ChatCompletionMessageParam,
  ChatCompletionToolChoiceOption,
} from 'openai/resources/chat/completions'
import type { Extras, ProviderChatRequest } from './provider.ts'

type ChatBody = ProviderChatRequest['body']

/** What an upstream wants otherwise than others do. */
interface Wishes {
  readonly maxTokensField: MaxTokensField
  readonly extras: Pick<Extras, 'parameters'>
}

/** A chat as OpenAI's chat completions take it. */
export function toChatCompletion(
  request: ProviderChatRequest,
  { maxTokensField, extras }: Wishes,
): ChatCompletionCreateParams {
  const { body } = request
  const hints = Object.entries(body.hints ?? {}).filter(([name]) => extras.parameters.includes(name))
  // Ours go over what was handed on: nothing of it changes what was planned.
  return Object.assign({}, Object.fromEntries(hints), body.parameters, ownMembers(request, maxTokensField))
}

function ownMembers(request: ProviderChatRequest, maxTokensField: MaxTokensField): ChatCompletionCreateParams {
  const { body } = request
  return {
    model: request.upstreamModel,
    messages: body.messages.map(toMessage),
    [maxTokensField]: request.maxOutputTokens,
    ...(body.choices !== undefined && { n: body.choices }),
    ...(request.streaming !== false && { stream: true, stream_options: { include_usage: true } }),
    ...toolsOf(body),
    ...(body.schema && { response_format: { type: 'json_schema', json_schema: toJsonSchema(body.schema) } }),
    ...(body.temperature !== undefined && { temperature: body.temperature }),
    ...(body.topP !== undefined && { top_p: body.topP }),
    ...(body.stop && body.stop.length > 0 && { stop: [...body.stop] }),
    ...(body.seed !== undefined && { seed: body.seed }),
    ...(body.reasoningEffort && { reasoning_effort: body.reasoningEffort }),
  }
}

function toJsonSchema({ name, description, schema, strict }: NonNullable<ChatBody['schema']>) {
  return { name, ...(description !== undefined && { description }), schema: { ...schema }, strict: strict ?? true }
}

/** OpenAI refuses a list of no tools, and a choice without tools. */
function toolsOf({ tools, toolChoice, parallelToolCalls }: ChatBody) {
  if (!tools || tools.length === 0) return {}
  return {
    tools: tools.map(({ name, description, parameters, strict }) => ({
      type: 'function' as const,
      function: {
        name,
        ...(description !== undefined && { description }),
        parameters: { ...parameters },
        ...(strict !== undefined && { strict }),
      },
    })),
    ...(toolChoice && { tool_choice: toToolChoice(toolChoice) }),
    ...(parallelToolCalls === false && { parallel_tool_calls: false }),
  }
}

function toToolChoice(choice: NonNullable<ChatBody['toolChoice']>): ChatCompletionToolChoiceOption {
  return typeof choice === 'string' ? choice : { type: 'function', function: { name: choice.name } }
}

function toMessage(message: ChatMessage): ChatCompletionMessageParam {
  switch (message.role) {
    case 'system':
      return { role: 'system', ...nameOf(message), content: message.content }
    case 'tool':
      return { role: 'tool', tool_call_id: message.toolCallId, content: message.content }
    case 'user':
      return {
        role: 'user',
        ...nameOf(message),
        content: typeof message.content === 'string' ? message.content : message.content.map(toPart),
      }
    case 'assistant': {
      if (!message.toolCalls || message.toolCalls.length === 0)
        return { role: 'assistant', ...nameOf(message), content: message.content }
      // Some refuse an empty text beside tool calls; nothing is what all of them take.
      return {
        role: 'assistant',
        ...nameOf(message),
        content: message.content === '' ? null : message.content,
        tool_calls: message.toolCalls.map((call) => ({
          type: 'function',
          id: call.id,
          function: { name: call.name, arguments: call.arguments },
        })),
      }
    }
  }
}

function nameOf({ name }: { readonly name?: string | undefined }): { readonly name?: string } {
  return name === undefined ? {} : { name }
}

type UserPart = Exclude<Extract<ChatMessage, { role: 'user' }>['content'], string>[number]

function toPart(part: UserPart): ChatCompletionContentPart {
  if (part.type === 'text') return { type: 'text', text: part.text }
  return { type: 'image_url', image_url: { url: part.url, ...(part.detail && { detail: part.detail }) } }
}
