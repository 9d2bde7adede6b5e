import { invariant } from '#domain/invariant.ts'
import { hash } from 'node:crypto'
import { Worker } from 'node:worker_threads'
import { LRUCache } from 'lru-cache'
import { tokensOfText, type Tokenizer } from './token-text.ts'
import type { Counted, CountOrder } from './token-worker.ts'

/** Counts tokens as a provider's own tokeniser does. Long texts are counted beside the event loop, and remembered. */
export interface TokenCounter {
  /** One number for each text. */
  count(tokenizer: Tokenizer, texts: readonly string[]): Promise<readonly number[]>
  stop(): Promise<void>
}

/** In characters, of all texts of a prompt. Fewer take less than a millisecond: less than it costs to hand them over. */
const LONG_TEXT = 4_096
/** A megabyte without a space takes seconds, and there is one thread for all: whoever waits has a bound without it. */
const PATIENCE_MS = 2_000
/** Most prompts that wait for the thread, given up or not: beyond it none is handed over. */
const MOST_WAITING = 1_000
/** A conversation that grows brings its old messages along with each call. */
const REMEMBERED_TEXT = 1_024
const MOST_REMEMBERED = 50_000

export function createTokenCounter(patienceMs = PATIENCE_MS): TokenCounter {
  const remembered = new LRUCache<string, number>({ max: MOST_REMEMBERED })
  const waiting = new Map<number, PromiseWithResolvers<readonly number[]>>()
  let worker: Worker | undefined
  let lastId = 0

  /** Whoever waits is told, and the next one starts another: a thread that died counts nothing more. */
  function fail(error: Error): void {
    worker = undefined
    for (const each of waiting.values()) each.reject(error)
    waiting.clear()
  }

  function thread(): Worker {
    if (worker) return worker
    worker = new Worker(new URL('./token-worker.ts', import.meta.url))
    worker.on('message', ({ id, tokens }: Counted) => {
      waiting.get(id)?.resolve(tokens)
      waiting.delete(id)
      if (waiting.size === 0) worker?.unref()
    })
    worker.on('error', fail)
    return worker
  }

  async function countAside(tokenizer: Tokenizer, texts: readonly string[]): Promise<readonly number[]> {
    if (waiting.size >= MOST_WAITING) throw new Error('too many prompts wait to be counted')
    const order: CountOrder = { id: (lastId += 1), tokenizer, texts }
    const counted = Promise.withResolvers<readonly number[]>()
    waiting.set(order.id, counted)
    const counting = thread()
    counting.ref()
    counting.postMessage(order)
    const timer = setTimeout(() => counted.reject(new Error('counting takes too long')), patienceMs)
    return counted.promise.finally(() => clearTimeout(timer))
  }

  async function count(tokenizer: Tokenizer, texts: readonly string[]): Promise<readonly number[]> {
    const keys = texts.map((text) =>
      text.length < REMEMBERED_TEXT ? '' : `${tokenizer} ${hash('sha256', text, 'base64')}`,
    )
    let characters = 0
    const counts = texts.map((text, index) => {
      const known = remembered.get(keys[index] ?? '')
      if (known !== undefined) return known
      characters += text.length
      return characters > LONG_TEXT ? undefined : tokensOfText(tokenizer, text)
    })
    const long = texts.filter((_, index) => counts[index] === undefined)
    const aside = long.length === 0 ? [] : [...(await countAside(tokenizer, long))]
    return counts.map((own, index) => {
      const tokens = own ?? aside.shift()
      invariant(tokens !== undefined, 'the thread counts each text')
      const key = keys[index] ?? ''
      if (key !== '') remembered.set(key, tokens)
      return tokens
    })
  }

  return {
    count,
    async stop() {
      await worker?.terminate()
      fail(new Error('the token counter was stopped'))
    },
  }
}
