import type { Tool, ToolCatalog, ToolName } from '#contracts/tools.ts'
import { z } from 'zod'

interface Definition<Name extends ToolName, Schema extends z.ZodType> {
  readonly name: Name
  readonly input: Schema
  run(input: z.output<Schema>): Promise<{
    readonly value: ToolCatalog[Name]['value']
    readonly payload: Readonly<Record<string, unknown>>
  }>
}

/** Tools read and change nothing, so that a repeat after a crash is harmless. Input that does not parse is refused. */
export function defineTool<Name extends ToolName, Schema extends z.ZodType>(
  definition: Definition<Name, Schema>,
): Tool {
  return {
    name: definition.name,
    async run(input) {
      const parsed = definition.input.safeParse(input)
      if (!parsed.success) return { ok: false, reason: 'invalid_input', detail: z.prettifyError(parsed.error) }
      return { ok: true, ...(await definition.run(parsed.data)) }
    },
  }
}
