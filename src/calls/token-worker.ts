import { parentPort } from 'node:worker_threads'
import { tokensOfText, type Tokenizer } from './token-text.ts'

/** Texts to be counted, and where to. */
export interface CountOrder {
  readonly id: number
  readonly tokenizer: Tokenizer
  readonly texts: readonly string[]
}

export interface Counted {
  readonly id: number
  readonly tokens: readonly number[]
}

parentPort?.on('message', ({ id, tokenizer, texts }: CountOrder) => {
  const counted: Counted = { id, tokens: texts.map((text) => tokensOfText(tokenizer, text)) }
  parentPort?.postMessage(counted)
})
