import type { CorpusStore } from '#contracts/corpus.ts'
import type { Tool } from '#contracts/tools.ts'
import { createCiteTool } from './cite.ts'
import { createFetchTool } from './fetch.ts'
import { createSearchTool } from './search.ts'

/** Every tool that an agent may use, on the documents of one tenant. */
export function createTools(store: CorpusStore): readonly Tool[] {
  return [createSearchTool(store), createFetchTool(store), createCiteTool(store)]
}
