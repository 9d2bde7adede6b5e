import type { EmbeddingCreateParams } from 'openai/resources/embeddings'
import type { AnswerCollector } from './answer-collector.ts'
import { failure } from './failure.ts'
import { problemOf } from './openai-answer.ts'
import { embedUsageOf } from './openai-usage.ts'
import { UpstreamError } from './problem.ts'
import type { ProviderEmbedRequest, ProviderResult, Received } from './provider.ts'
import { isIndex, listOf, recordOf } from './untrusted.ts'

type Vector = readonly number[]

const BYTES_PER_FLOAT = 4

/** Base64 is a fifth of the bytes of decimals; who does not know it sends decimals. */
export function toEmbedding({ upstreamModel, body }: ProviderEmbedRequest): EmbeddingCreateParams {
  return {
    model: upstreamModel,
    input: [...body.input],
    encoding_format: 'base64',
    ...(body.dimensions !== undefined && { dimensions: body.dimensions }),
    ...(body.user !== undefined && { user: body.user }),
  }
}

/** Takes an embedding response; false when it is none. What is wrong with its vectors is the verdict's: it is billed. */
export function addEmbeddings(body: unknown, answer: AnswerCollector): boolean {
  const response = recordOf(body)
  if (response?.['error']) throw new UpstreamError(problemOf(response['error']))
  if (!response || !Array.isArray(response['data'])) return false
  answer.noteRequestId(response['id'])
  answer.addVectors(inOrder(response['data']).map((item) => vectorOf(item['embedding'])))
  answer.first.finish('stop')
  answer.addUsage(embedUsageOf(response['usage']))
  return true
}

export function judgeVectors(received: Received, { body }: ProviderEmbedRequest): ProviderResult {
  const { vectors } = received
  const dimensions = body.dimensions ?? vectors[0]?.length ?? 0
  const isRight = (vector: Vector) => vector.length > 0 && vector.length === dimensions && vector.every(Number.isFinite)
  if (vectors.length === body.input.length && vectors.every(isRight)) return { outcome: 'answered', received }
  const detail = `asked for ${body.input.length} vectors of ${dimensions} finite numbers, and received others`
  return failure('malformed_answer', detail, { received: { ...received, vectors: [] } })
}

/** By their index where each has its own; else as they came. */
function inOrder(data: readonly unknown[]): readonly Readonly<Record<string, unknown>>[] {
  const items = data.map((item) => recordOf(item) ?? {})
  const byIndex = new Map(items.map((item) => [item['index'], item]))
  const isNumbered = byIndex.size === items.length && [...byIndex.keys()].every((index) => isIndex(index))
  return isNumbered ? items.toSorted((one, other) => Number(one['index']) - Number(other['index'])) : items
}

/** Little-endian 32-bit floats in base64, or numbers. Empty for anything else. */
function vectorOf(embedding: unknown): Vector {
  if (typeof embedding !== 'string') {
    const numbers = listOf(embedding)
    return numbers.every((each) => typeof each === 'number') ? numbers : []
  }
  const bytes = Buffer.from(embedding, 'base64')
  if (bytes.length % BYTES_PER_FLOAT !== 0) return []
  return Array.from({ length: bytes.length / BYTES_PER_FLOAT }, (_, index) =>
    bytes.readFloatLE(index * BYTES_PER_FLOAT),
  )
}
