import { type CorpusStore, MAX_PASSAGES } from '#contracts/corpus.ts'
import type { passagesSchema } from '#contracts/passages.ts'
import type { Tool } from '#contracts/tools.ts'
import { z } from 'zod'
import { defineTool } from './define-tool.ts'

const inputSchema = z.strictObject({ corpusId: z.uuid(), passageIds: z.array(z.uuid()).max(MAX_PASSAGES) })

/** Reads passages, to be written into a prompt. Ids that are not in the corpus are left out. */
export function createFetchTool(store: CorpusStore): Tool {
  return defineTool({
    name: 'fetch',
    input: inputSchema,
    async run(request) {
      const found = await store.fetch(request)
      const payload: z.output<typeof passagesSchema> = {
        passages: found.map(({ id, source, title, heading, text }) => ({
          id,
          source,
          title: heading === undefined ? title : `${title} › ${heading}`,
          text,
        })),
      }
      return { value: { passageIds: found.map((passage) => passage.id) }, payload: { ...payload } }
    },
  })
}
