import type { ChatMessage, ToolCall } from '#contracts/chat.ts'
import type {
  ContentBlockParam,
  ImageBlockParam,
  MessageCreateParams,
  MessageParam,
  OutputConfig,
  ThinkingConfigParam,
  ToolChoice,
} from '@anthropic-ai/sdk/resources/messages'
import type { ProviderChatRequest } from './provider.ts'
import { recordOf, textOf } from './untrusted.ts'

type ChatBody = ProviderChatRequest['body']

export interface AnthropicFeatures {
  /** Has the API cache the prompt up to its last message: writing costs more than input, reading much less. */
  readonly promptCache?: boolean | undefined
}

/**
 * A chat as the Messages API takes it. The API has no `seed`, and from version 2026-10-21 on refuses `temperature` and
 * `top_p`: they are hints, and left out. System messages all stand in front.
 */
export function toMessageRequest(request: ProviderChatRequest, features: AnthropicFeatures): MessageCreateParams {
  const { body } = request
  const system = body.messages.flatMap(({ role, content }) => (role === 'system' && content !== '' ? [content] : []))
  const thinking = thinkingOf(request)
  const output = outputOf(body, thinking)
  const { user, metadata, ...others } = body.parameters ?? {}
  const { hints = {} } = body
  const userId =
    textOf(user) || textOf(recordOf(metadata)?.['user_id']) || textOf(hints['user_id']) || textOf(hints['user'])
  return Object.assign({}, others, {
    model: request.upstreamModel,
    max_tokens: request.maxOutputTokens,
    messages: toMessages(body.messages),
    ...(request.streaming !== false && { stream: true }),
    ...(system.length > 0 && { system: system.map((text) => ({ type: 'text' as const, text })) }),
    ...toolsOf(body),
    ...(thinking && { thinking }),
    ...(output && { output_config: output }),
    ...(body.stop && body.stop.length > 0 && { stop_sequences: [...body.stop] }),
    ...(features.promptCache && { cache_control: { type: 'ephemeral' as const } }),
    ...(userId !== '' && { metadata: { user_id: userId } }),
  })
}

/** The models that think by a budget of tokens; all later ones decide themselves how much, by an effort. */
const THINKS_BY_BUDGET = /claude-(3-7|(opus|sonnet|haiku)-4(-[015])?(-\d{8})?$)/
/** The least budget that the API takes. */
const LEAST_BUDGET = 1_024
const BUDGETS = {
  none: 0,
  minimal: 0,
  low: LEAST_BUDGET,
  medium: 4_096,
  high: 16_384,
  xhigh: 32_768,
  max: 65_536,
} as const

/** Thinking excludes a tool that must be called, which is more than a hint: then the model does not think. */
function thinkingOf({ body, upstreamModel, maxOutputTokens }: ProviderChatRequest): ThinkingConfigParam | null {
  const { reasoningEffort, toolChoice = 'auto', tools = [], hints = {} } = body
  const isUnwanted = reasoningEffort === 'none' || hints['thinking'] === 'disabled'
  // Models that think by a budget do not think without one; of later ones some do unless they are told not to.
  if (isUnwanted) return THINKS_BY_BUDGET.test(upstreamModel) ? null : { type: 'disabled' }
  const isForced = tools.length > 0 && toolChoice !== 'auto' && toolChoice !== 'none'
  if (!reasoningEffort || isForced) return null
  if (!THINKS_BY_BUDGET.test(upstreamModel)) return { type: 'adaptive' }
  // What it thought before it called its tools would have to come back with their results, and nobody here has it.
  const last = body.messages.findLast(({ role }) => role === 'assistant')
  if (last?.role === 'assistant' && last.toolCalls && last.toolCalls.length > 0) return null
  // Thinking is part of the output: half of it stays for the answer.
  const budget = Math.min(BUDGETS[reasoningEffort], Math.floor(maxOutputTokens / 2))
  return budget < LEAST_BUDGET ? null : { type: 'enabled', budget_tokens: budget }
}

function outputOf({ schema, reasoningEffort }: ChatBody, thinking: ThinkingConfigParam | null): OutputConfig | null {
  const isThinking = thinking?.type === 'adaptive' && reasoningEffort !== 'none'
  const effort = isThinking && (reasoningEffort === 'minimal' ? 'low' : reasoningEffort)
  if (!schema && !effort) return null
  return {
    ...(effort && { effort }),
    ...(schema && { format: { type: 'json_schema', schema: { ...schema.schema } } }),
  }
}

function toolsOf({ tools, toolChoice, parallelToolCalls }: ChatBody) {
  if (!tools || tools.length === 0) return {}
  return {
    tools: tools.map(({ name, description, parameters, strict }) => ({
      name,
      ...(description !== undefined && { description }),
      input_schema: { ...parameters, type: 'object' as const },
      ...(strict && { strict }),
    })),
    ...((toolChoice || parallelToolCalls === false) && {
      tool_choice: toToolChoice(toolChoice ?? 'auto', parallelToolCalls),
    }),
  }
}

function toToolChoice(
  choice: NonNullable<ChatBody['toolChoice']>,
  parallelToolCalls: ChatBody['parallelToolCalls'],
): ToolChoice {
  const one = parallelToolCalls === false && { disable_parallel_tool_use: true }
  if (typeof choice !== 'string') return { type: 'tool', name: choice.name, ...one }
  if (choice === 'none') return { type: 'none' }
  return { type: choice === 'required' ? 'any' : 'auto', ...one }
}

/** Results of tools stand in one message of the user, right after the one that called them. */
function toMessages(messages: readonly ChatMessage[]): MessageParam[] {
  const turns: { role: 'user' | 'assistant'; content: ContentBlockParam[] }[] = []
  for (const message of messages) {
    if (message.role === 'system') continue
    const role = message.role === 'assistant' ? 'assistant' : 'user'
    const content = toBlocks(message)
    const last = turns.at(-1)
    if (last?.role === role) last.content.push(...content)
    else if (content.length > 0) turns.push({ role, content })
  }
  return turns
}

function toBlocks(message: Exclude<ChatMessage, { role: 'system' }>): ContentBlockParam[] {
  switch (message.role) {
    case 'tool':
      return [
        {
          type: 'tool_result',
          tool_use_id: message.toolCallId,
          content: message.content,
          ...(message.isError && { is_error: true }),
        },
      ]
    case 'assistant':
      return [...textBlocks(message.content), ...(message.toolCalls ?? []).map(toToolUse)]
    case 'user':
      if (typeof message.content === 'string') return textBlocks(message.content)
      return message.content.flatMap((part) => (part.type === 'text' ? textBlocks(part.text) : [toImage(part.url)]))
  }
}

/** The API refuses an empty text. */
function textBlocks(text: string): ContentBlockParam[] {
  return text === '' ? [] : [{ type: 'text', text }]
}

function toToolUse(call: ToolCall): ContentBlockParam {
  return { type: 'tool_use', id: call.id, name: call.name, input: inputOf(call.arguments) }
}

/** The API takes an object only; what a model wrote that is none is handed back as it was. */
function inputOf(written: string): Readonly<Record<string, unknown>> {
  try {
    return recordOf(JSON.parse(written)) ?? { arguments: written }
  } catch {
    return { arguments: written }
  }
}

function toImage(url: string): ImageBlockParam {
  const [, kind, data] = /^data:image\/(png|jpeg|gif|webp);base64,(.*)$/s.exec(url) ?? []
  const type = MEDIA_TYPES.find((each) => each === `image/${kind}`)
  return type && data !== undefined
    ? { type: 'image', source: { type: 'base64', media_type: type, data } }
    : { type: 'image', source: { type: 'url', url } }
}

const MEDIA_TYPES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'] as const
