import { MAX_PASSAGES } from '#contracts/corpus.ts'
import { z } from 'zod'
import { parseInput, type Tool } from './tool.ts'

const inputSchema = z.strictObject({ corpusId: z.uuid(), passageIds: z.array(z.uuid()).max(MAX_PASSAGES) })

/** Reads passages, to be written into a prompt. Ids that are not in the corpus are left out. */
export const fetchTool: Tool<'fetch'> = {
  name: 'fetch',
  async run(input, { store, signal }) {
    const request = parseInput(inputSchema, input)
    signal.throwIfAborted()
    const found = await store.fetch(request)
    const passages = found.map(({ id, source, title, heading, text }) => ({
      id,
      source,
      title: heading === undefined ? title : `${title} › ${heading}`,
      text,
    }))
    return { value: { count: passages.length }, payload: { passages } }
  },
}
