import type { Route } from '#contracts/catalog.ts'
import type { ChatBody, ChatMessage, EmbedBody } from '#contracts/chat.ts'
import { inputTokenBound, REQUEST_OVERHEAD, MESSAGE_OVERHEAD, TOOLS_OVERHEAD, utf8Length } from '#domain/token-bound.ts'
import type { CallBody } from './call.ts'
import type { TokenCounter } from './token-counter.ts'

/** The most that a prompt can have, and how that was found. */
export interface PromptBound {
  readonly tokens: number
  /** What its text surely has of a context: 0 where only a bound is known, and of texts that have one each. */
  readonly least: number
  readonly by: 'tokenizer' | 'bytes' | 'context'
  readonly images: number
}

/**
 * Most tokens the prompt can have on each route. With the upstream model's own tokeniser its texts are counted; otherwise
 * their bytes bound them. What providers put around them (marks, tools, schemas) is bounded by bytes in both cases.
 */
export function promptBounds(counter: TokenCounter, body: CallBody): (route: PromptRoute) => Promise<PromptBound> {
  const texts = textsOf(body)
  const hidden = hiddenOf(body)
  const extra = utf8Length(parametersOf(body)) + (hidden === '' ? 0 : TOOLS_OVERHEAD)
  const around = texts.length * MESSAGE_OVERHEAD + REQUEST_OVERHEAD + utf8Length(hidden) + extra
  const images = imagesOf(body)
  const bytes = inputTokenBound(texts, hidden) + extra
  // Texts to be embedded have a context each.
  const contexts = isEmbedding(body) ? body.input.length : 1
  const counted = new Map<string, Promise<number | undefined>>()
  return async ({ tokenizer, imageTokens, contextTokens }) => {
    if (tokenizer && !counted.has(tokenizer))
      counted.set(
        tokenizer,
        countTexts(counter, tokenizer, texts).catch(() => undefined),
      )
    const known = tokenizer && (await counted.get(tokenizer))
    const least = isEmbedding(body) ? 0 : (known ?? 0)
    const most = known === undefined ? bytes : Math.min(bytes, known + around)
    const tokens = most + images * imageTokens
    const context = contextTokens * contexts
    if (tokens >= context) return { tokens: context, least, by: 'context', images }
    return { tokens, least, by: known === undefined ? 'bytes' : 'tokenizer', images }
  }
}

type PromptRoute = Pick<Route, 'tokenizer' | 'imageTokens' | 'contextTokens'>

async function countTexts(
  counter: TokenCounter,
  tokenizer: NonNullable<Route['tokenizer']>,
  texts: readonly string[],
): Promise<number> {
  const counts = await counter.count(tokenizer, texts)
  return counts.reduce((sum, each) => sum + each, 0)
}

export function isEmbedding(body: CallBody): body is EmbedBody {
  return 'input' in body
}

export function imagesOf(body: CallBody): number {
  if (isEmbedding(body)) return 0
  return body.messages.reduce((sum, { content }) => {
    return typeof content === 'string' ? sum : sum + content.filter(({ type }) => type === 'image').length
  }, 0)
}

/** One text for each message, or each text to be embedded. */
function textsOf(body: CallBody): readonly string[] {
  return isEmbedding(body) ? body.input : body.messages.map(textOf)
}

function textOf(message: ChatMessage): string {
  const { content } = message
  const text =
    typeof content === 'string' ? content : content.map((part) => ('text' in part ? part.text : '')).join('\n')
  if (message.role === 'tool') return `${message.toolCallId}\n${text}`
  const named = message.name === undefined ? text : `${message.name}\n${text}`
  const calls = message.role === 'assistant' ? (message.toolCalls ?? []) : []
  return calls.length === 0 ? named : `${named}\n${JSON.stringify(calls)}`
}

/** What an upstream makes of members that are not known here may become part of the prompt. */
function parametersOf(body: CallBody): string {
  return isEmbedding(body) || !body.parameters ? '' : JSON.stringify(body.parameters)
}

/** What becomes part of the prompt without being a message, in the provider's own form. */
function hiddenOf(body: CallBody): string {
  if (isEmbedding(body)) return ''
  const { schema, tools }: Pick<ChatBody, 'schema' | 'tools'> = body
  return `${schema ? JSON.stringify(schema) : ''}${tools ? JSON.stringify(tools) : ''}`
}
