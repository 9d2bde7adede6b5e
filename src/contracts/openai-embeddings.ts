import { z } from 'zod'
import { storableText } from './storable-text.ts'

/** OpenAI's limit for one request. */
const MOST_INPUTS = 2_048
const MOST_DIMENSIONS = 65_536

const input = storableText.min(1)

/** The request of OpenAI's embeddings. Source: OpenAI's API reference. */
export const openAiEmbeddingsRequestSchema = z
  .strictObject({
    model: storableText.min(1).max(100),
    input: z.union(
      [input, z.array(input).min(1).max(MOST_INPUTS)],
      `is neither a text nor a list of 1 to ${MOST_INPUTS} texts, none of them empty: lists of tokens are not supported`,
    ),
    encoding_format: z.enum(['float', 'base64']).nullish(),
    dimensions: z.int().min(1).max(MOST_DIMENSIONS).nullish(),
    /** Whose text it is: OpenAI looks at it when somebody abuses an account. */
    user: storableText.nullish(),
  })
  .meta({ id: 'OpenAiEmbeddingsRequest', examples: [{ model: 'embed', input: 'When was the mill built?' }] })
