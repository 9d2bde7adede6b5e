import { createHash } from 'node:crypto'
import type { ModelRequest, PromptMessage } from './request.ts'
import { TOKENS_TO_PRIME, countMessage, countTokens } from './tokens.ts'
import { plainMessage } from './request.ts'

/** What a prompt takes, and what of it the cache knows or takes in. */
export interface PromptUsage {
  readonly promptTokens: number
  readonly cachedTokens: number
  readonly cacheWriteTokens: number
  readonly images: number
}

/** Each takes some 100 bytes; in two generations, so that those in use stay. */
const MOST_PREFIXES = 20_000

/** The beginnings of prompts that were seen before. */
export class PrefixCache {
  #young = new Set<string>()
  #old = new Set<string>()

  has(prefix: string): boolean {
    return this.#young.has(prefix) || this.#old.has(prefix)
  }

  add(prefix: string): void {
    if (this.#young.size >= MOST_PREFIXES) {
      this.#old = this.#young
      this.#young = new Set()
    }
    this.#young.add(prefix)
  }
}

export interface PromptCounting {
  readonly imageTokens: number
  /** Every message ends a prefix that is cached; else only what the request marks does. */
  readonly cachesAll: boolean
  /** Whose cache it is: nobody profits from a stranger's prompt. */
  readonly owner: string
}

/** Counts a prompt, and looks up and enlarges what is cached of it. */
export function countPrompt(request: ModelRequest, counting: PromptCounting, cache: PrefixCache): PromptUsage {
  const parts = partsOf(request)
  const keepsPrefixes = counting.cachesAll || parts.some((part) => part.isMarked)
  const hash = keepsPrefixes ? createHash('sha256').update(`${counting.owner}\0${request.model}`) : null
  let tokens = 0
  let images = 0
  let cached = 0
  let marked = 0
  for (const part of parts) {
    const role = part.isContinued || request.embedding !== null ? 0 : countMessage(part.role)
    tokens += role + countTokens(part.text) + countTokens(part.hidden) + part.images * counting.imageTokens
    images += part.images
    if (hash === null) continue
    hash.update(JSON.stringify([part.role, part.text, part.hidden, part.images]))
    // Read wherever it was written before; written at marks only.
    const prefix = hash.copy().digest('base64')
    if (cache.has(prefix)) cached = tokens
    if (counting.cachesAll || part.isMarked) cache.add(prefix)
    if (part.isMarked) marked = tokens
  }
  return {
    promptTokens: tokens + (request.embedding === null ? TOKENS_TO_PRIME : 0),
    cachedTokens: cached,
    cacheWriteTokens: Math.max(0, marked - cached),
    images,
  }
}

/** Tools stand before all messages. */
function partsOf({ tools, areToolsMarked, messages }: ModelRequest): readonly PromptMessage[] {
  if (tools.length === 0) return messages
  return [{ ...plainMessage, role: 'tools', text: JSON.stringify(tools), isMarked: areToolsMarked }, ...messages]
}
