import { MAX_PASSAGES } from '#contracts/corpus.ts'
import { z } from 'zod'
import { shortOrigin } from './origin.ts'
import { parseInput, type Tool } from './tool.ts'

/** A question of several sentences; more is a document. */
const MAX_QUERY_LENGTH = 2000

const inputSchema = z.strictObject({
  corpusId: z.uuid(),
  /** As a model wrote it: U+0000, which Postgres refuses, ends no run. */
  query: z
    .string()
    .min(1)
    .max(MAX_QUERY_LENGTH)
    .transform((text) => text.replaceAll('\0', ' ')),
  limit: z.int().min(1).max(MAX_PASSAGES).default(MAX_PASSAGES),
})

/** Finds passages, best first. The payload has the hits with their headings, scores and full names. */
export const searchTool: Tool<'search'> = {
  name: 'search',
  async run(input, { store, signal }) {
    const query = parseInput(inputSchema, input)
    signal.throwIfAborted()
    const hits = await store.search(query)
    return { value: { hits: hits.map((hit) => ({ id: hit.id, ...shortOrigin(hit) })) }, payload: { hits } }
  },
}
