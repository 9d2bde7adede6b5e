import { type CorpusStore, MAX_PASSAGES } from '#contracts/corpus.ts'
import type { Tool } from '#contracts/tools.ts'
import { z } from 'zod'
import { defineTool } from './define-tool.ts'
import { shortOrigin } from './origin.ts'

/** A question of several sentences; more is a document. */
const MAX_QUERY_LENGTH = 2000

const inputSchema = z.strictObject({
  corpusId: z.uuid(),
  query: z.string().min(1).max(MAX_QUERY_LENGTH),
  limit: z.int().min(1).max(MAX_PASSAGES).default(MAX_PASSAGES),
})

/** Finds passages, best first. The payload has the hits with their headings and full names. */
export function createSearchTool(store: CorpusStore): Tool {
  return defineTool({
    name: 'search',
    input: inputSchema,
    async run(query) {
      const hits = await store.search(query)
      const short = hits.map(({ id, source, title, score, coverage }) => ({
        id,
        ...shortOrigin({ source, title }),
        score,
        coverage,
      }))
      return { value: { hits: short }, payload: { hits } }
    },
  })
}
