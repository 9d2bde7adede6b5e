import { type ModelRequest, type PromptMessage, plainMessage, plainRequest } from './request.ts'
import { type Body, Unusable, readCount, readModel } from './request-fields.ts'
import { decodeTokens } from './tokens.ts'

/** OpenAI's limit for one request. */
const MOST_INPUTS = 2048
const MOST_DIMENSIONS = 4096

/** Reads the body of `POST /v1/embeddings`: each text becomes a message without a role. */
export function readEmbeddingsRequest(body: Body): ModelRequest {
  const model = readModel(body)
  const format = body['encoding_format'] ?? 'float'
  if (format !== 'float' && format !== 'base64') {
    throw new Unusable("Invalid 'encoding_format': expected 'float' or 'base64'.", 'encoding_format')
  }
  const dimensions = readCount(body, 'dimensions')
  if (dimensions !== null && dimensions > MOST_DIMENSIONS) {
    throw new Unusable(`Invalid 'dimensions': expected at most ${MOST_DIMENSIONS}.`, 'dimensions')
  }
  return {
    ...plainRequest,
    model,
    messages: readInputs(body['input']),
    embedding: { dimensions, isBase64: format === 'base64' },
  }
}

function readInputs(input: unknown): readonly PromptMessage[] {
  const isOne = typeof input === 'string' || (Array.isArray(input) && input.every(Number.isInteger))
  const inputs: readonly unknown[] = isOne ? [input] : Array.isArray(input) ? input : []
  if (inputs.length === 0 || inputs.length > MOST_INPUTS) {
    throw new Unusable(`Invalid 'input': expected 1 to ${MOST_INPUTS} texts.`, 'input')
  }
  return inputs.map((each) => {
    const text = Array.isArray(each) ? decodeTokens(each) : each
    if (typeof text !== 'string' || text === '') {
      throw new Unusable("Invalid 'input': expected texts, or tokens, that are not empty.", 'input')
    }
    return { ...plainMessage, role: '', text }
  })
}
