import { citeTool } from './cite.ts'
import { fetchTool } from './fetch.ts'
import { searchTool } from './search.ts'
import type { Tool } from './tool.ts'

/** Every tool a workflow may name. */
export const TOOLS: Readonly<Record<string, Tool>> = { search: searchTool, fetch: fetchTool, cite: citeTool }
