import { Problem } from '#contracts/codes.ts'
import type { CorpusStore } from '#contracts/corpus.ts'
import type { ToolCatalog, ToolName } from '#contracts/tools.ts'
import { z } from 'zod'

export interface ToolContext {
  readonly store: CorpusStore
  readonly signal: AbortSignal
}

export interface ToolOutput<Name extends ToolName = ToolName> {
  /** Small JSON (≤ 16 KB) that may stand in a workflow's history. */
  readonly value: ToolCatalog[Name]['value']
  /** JSON to be stored, and reached by reference. */
  readonly payload: Readonly<Record<string, unknown>>
}

/** What a workflow may ask for besides a model's answer. It reads and changes nothing, so it may run again. */
export interface Tool<Name extends ToolName = ToolName> {
  readonly name: Name
  /** @throws Problem `invalid_request` when the input does not parse */
  run(input: unknown, context: ToolContext): Promise<ToolOutput<Name>>
}

export function parseInput<Schema extends z.ZodType>(schema: Schema, input: unknown): z.output<Schema> {
  const parsed = schema.safeParse(input)
  if (!parsed.success) throw new Problem('invalid_request', z.prettifyError(parsed.error))
  return parsed.data
}
