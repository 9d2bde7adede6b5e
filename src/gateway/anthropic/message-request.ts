import {
  anthropicMessageRequestSchema,
  type AnthropicMessageRequest,
  type AnthropicPrompt,
} from '#contracts/anthropic-messages.ts'
import type { CatalogModel } from '#contracts/catalog.ts'
import type { ReasoningEffort } from '#contracts/names.ts'
import type { ChatBody, ChatMessage, ImagePart, TextPart, ToolDefinition } from '#contracts/chat.ts'
import { furtherMembers, type MemberRules } from '../further-members.ts'
import { Refusal } from '../refusal.ts'

type Message = AnthropicPrompt['messages'][number]
type UserBlock = Extract<Message, { role: 'user' }>['content'][number]
type AssistantBlock = Extract<Message, { role: 'assistant' }>['content'][number]
type ResultBlock = Extract<UserBlock, { type: 'tool_result' }>
type PlainBlock = Exclude<UserBlock, ResultBlock>

const RULES: MemberRules = {
  read: anthropicMessageRequestSchema.shape,
  refused: {
    container: 'Containers of the provider are billed by the hour, and are not supported.',
    mcp_servers: "The provider's own connections to MCP servers are not supported: offer their tools yourself.",
    compaction: 'Compaction by the provider is billed on its own, and is not supported.',
    fallbacks: 'Fallbacks are chosen by the routes of the model here.',
    fallback_credit_token: 'Fallbacks are chosen by the routes of the model here.',
  },
  only: {
    service_tier: ['auto', 'standard_only'],
    speed: ['standard'],
    inference_geo: ['global'],
  },
  dropped: ['betas', 'cache_control', 'context_management', 'diagnostics', 'metadata'],
}

/** A message as the engine takes it. @throws Refusal for what cannot be asked or priced */
export function toMessageBody(request: AnthropicMessageRequest, model: CatalogModel): ChatBody {
  refuseEdits(request['context_management'])
  const parameters = furtherMembers(request, RULES)
  const { stop_sequences, temperature, top_p } = request
  const reasoningEffort = effortOf(request, model)
  return {
    ...toPromptBody(request),
    maxTokens: request.max_tokens,
    ...(temperature != null && { temperature }),
    ...(top_p != null && { topP: top_p }),
    ...(stop_sequences && stop_sequences.length > 0 && { stop: stop_sequences }),
    ...(reasoningEffort && { reasoningEffort }),
    ...(Object.keys(parameters).length > 0 && { parameters }),
    ...hintsOf(request),
  }
}

/**
 * For routes of Anthropic alone: who asks, which coding agents make longer than others take, and that the model is not to
 * think, where those think unless they are told so.
 */
function hintsOf({ metadata, thinking }: AnthropicMessageRequest): Pick<ChatBody, 'hints'> {
  const id: unknown = typeof metadata === 'object' && metadata !== null && 'user_id' in metadata ? metadata.user_id : ''
  const hints = {
    ...(typeof id === 'string' && id !== '' && { user_id: id }),
    ...(thinking?.type === 'disabled' && { thinking: 'disabled' }),
  }
  return Object.keys(hints).length > 0 ? { hints } : {}
}

/** What is the prompt of a request, in the engine's words. */
export function toPromptBody({ messages, system, ...request }: AnthropicPrompt): Omit<ChatBody, 'maxTokens'> {
  const { tools, tool_choice: choice } = request
  const format = request.output_config?.format ?? request.output_format
  const instructions = textOf(system ?? [])
  return {
    messages: [
      ...(instructions === '' ? [] : [{ role: 'system' as const, content: instructions }]),
      ...messages.flatMap(toMessages),
    ],
    ...(format && { schema: { name: 'answer', schema: format.schema } }),
    ...(tools && tools.length > 0 && { tools: tools.map(toTool) }),
    ...(choice && { toolChoice: toToolChoice(choice) }),
    ...(choice && choice.type !== 'none' && choice.disable_parallel_tool_use && { parallelToolCalls: false as const }),
  }
}

/**
 * Edits that only clear what is old save tokens, and are left out. Those that write something new would be billed
 * beside what is held.
 */
function refuseEdits(management: unknown): void {
  if (management == null) return
  const edits: unknown = typeof management === 'object' && 'edits' in management ? management.edits : []
  for (const edit of Array.isArray(edits) ? edits : []) {
    const type: unknown = typeof edit === 'object' && edit !== null && 'type' in edit ? edit.type : undefined
    if (typeof type === 'string' && type.startsWith('clear_')) continue
    throw new Refusal('unsupported_parameter', 'Only edits that clear the context are taken, and left out.', {
      param: 'context_management',
    })
  }
}

/** Where budgets of tokens begin that are more than a low effort, and more than a medium one. */
const MEDIUM_BUDGET = 4_096
const HIGH_BUDGET = 16_384

/**
 * How much a model is asked to think. Thoughts are part of `max_tokens`, so that they are held like all output; they are
 * billed, and not shown. Only a model whose routes all say that they think is asked: another may refuse the word. A budget
 * is a demand, which such a model cannot meet; to think as it likes, which coding agents ask of every model, any can.
 */
function effortOf(
  { thinking, output_config, max_tokens }: AnthropicMessageRequest,
  model: CatalogModel,
): ReasoningEffort | null {
  const thinks = model.routes.every(({ capabilities }) => capabilities.reasoning)
  const effort = output_config?.effort
  if (thinking?.type === 'disabled') return null
  if (thinking?.type !== 'enabled') return thinks ? (effort ?? (thinking ? 'high' : null)) : null
  const { budget_tokens: budget } = thinking
  if (!thinks) {
    throw new Refusal(
      'unsupported_parameter',
      `A route of ${model.name} does not think: thinking has no price there.`,
      {
        param: 'thinking',
        remedy: 'Leave thinking out, or send {"type": "adaptive"}.',
      },
    )
  }
  if (budget >= max_tokens) {
    throw new Refusal('invalid_request', 'thinking.budget_tokens: is not less than max_tokens', { param: 'thinking' })
  }
  return effort ?? (budget < MEDIUM_BUDGET ? 'low' : budget < HIGH_BUDGET ? 'medium' : 'high')
}

function toMessages(message: Message): readonly ChatMessage[] {
  switch (message.role) {
    case 'system':
      return [{ role: 'system', content: textOf(message.content) }]
    case 'assistant':
      return [toAssistant(message.content)]
    case 'user':
      return toUser(message.content)
  }
}

function toAssistant(blocks: readonly AssistantBlock[]): ChatMessage {
  const toolCalls = blocks.flatMap((block) =>
    block.type === 'tool_use' ? [{ id: block.id, name: block.name, arguments: JSON.stringify(block.input) }] : [],
  )
  return {
    role: 'assistant',
    content: blocks.map((block) => (block.type === 'text' ? block.text : '')).join(''),
    ...(toolCalls.length > 0 && { toolCalls }),
  }
}

/** Results of tools come first, as every API wants them; their images, which not every one takes there, right after. */
function toUser(blocks: readonly UserBlock[]): readonly ChatMessage[] {
  const results = blocks.filter((block) => block.type === 'tool_result')
  const shown = results.flatMap(({ content }) => (content ?? []).filter((block) => block.type === 'image'))
  const said = blocks.filter((block) => block.type !== 'tool_result')
  const parts = [...shown, ...said].map(toPart)
  const [first] = parts
  const content = parts.length === 1 && first?.type === 'text' ? first.text : parts
  return [...results.map(toToolMessage), ...(parts.length > 0 ? [{ role: 'user' as const, content }] : [])]
}

function toToolMessage({ tool_use_id, content = [], is_error }: ResultBlock): ChatMessage {
  const text = content.map((block) => (block.type === 'text' ? block.text : '[image]')).join('\n')
  return { role: 'tool', toolCallId: tool_use_id, content: text, ...(is_error && { isError: true as const }) }
}

function toPart(block: PlainBlock): TextPart | ImagePart {
  if (block.type === 'text') return { type: 'text', text: block.text }
  const { source } = block
  return {
    type: 'image',
    url: source.type === 'url' ? source.url : `data:${source.media_type};base64,${source.data}`,
  }
}

function textOf(blocks: readonly { readonly text: string }[]): string {
  return blocks.map(({ text }) => text).join('\n')
}

function toTool({
  name,
  description,
  input_schema,
  strict,
}: NonNullable<AnthropicPrompt['tools']>[number]): ToolDefinition {
  return {
    name,
    ...(description != null && { description }),
    parameters: input_schema,
    ...(strict && { strict }),
  }
}

function toToolChoice(choice: NonNullable<AnthropicPrompt['tool_choice']>): NonNullable<ChatBody['toolChoice']> {
  if (choice.type === 'tool') return { name: choice.name }
  return choice.type === 'any' ? 'required' : choice.type
}
