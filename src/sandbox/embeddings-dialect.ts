import { createHash } from 'node:crypto'
import { openAiError } from './chat-dialect.ts'
import type { AnswerWriter, Dialect } from './dialect.ts'
import { readEmbeddingsRequest } from './embeddings-request.ts'
import { type Exchange, spoilUsage } from './exchange.ts'

/** OpenAI's embeddings. */
export const embeddingsDialect: Dialect = {
  name: 'embeddings',
  read: readEmbeddingsRequest,
  adaptError: (error) => error,
  writeError: openAiError,
  openAnswer: openVectors,
  idHeader: 'x-request-id',
  idPrefix: 'embd-',
}

/** One SHA-256 gives so many components. */
const COMPONENTS_PER_HASH = 16

/** Vectors come in one body only. */
function openVectors(exchange: Exchange): AnswerWriter {
  const { request, faults, model } = exchange
  const dimensions = request.embedding?.dimensions ?? model.dimensions
  const isBase64 = request.embedding?.isBase64 === true
  const isEmpty = faults.emptyChoices === true
  return {
    body: (usage) => ({
      object: 'list',
      data: (isEmpty ? [] : request.messages).map(({ text }, index) => {
        const vector = vectorOf(text, dimensions)
        const embedding = isBase64 ? Buffer.from(vector.buffer).toString('base64') : Array.from(vector)
        return { object: 'embedding', index, embedding }
      }),
      model: request.model,
      ...(usage === null
        ? {}
        : { usage: spoilUsage({ prompt_tokens: usage.promptTokens, total_tokens: usage.promptTokens }, faults) }),
    }),
    start: () => '',
    piece: () => '',
    end: () => '',
    error: () => '',
  }
}

/** The same text has the same vector, of length 1; different texts have nothing to do with each other. */
function vectorOf(text: string, dimensions: number): Float32Array<ArrayBuffer> {
  const digest = createHash('sha256').update(text).digest()
  const components: number[] = []
  for (let block = 0; components.length < dimensions; block += 1) {
    const hash = createHash('sha256').update(digest).update(String(block)).digest()
    for (let at = 0; at < COMPONENTS_PER_HASH; at += 1) components.push(hash.readInt16LE(2 * at))
  }
  const kept = components.slice(0, dimensions)
  const length = Math.hypot(...kept) || 1
  return Float32Array.from(kept, (component) => component / length)
}
