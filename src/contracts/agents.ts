/** JSON Schema (draft 2020-12) as plain data: agents declare schemas so; zod never enters the workflow bundle. */
export type JsonSchema = { readonly [key: string]: unknown }

/** What the API knows of an agent: its name and schemas as data, never its code. */
export interface AgentManifest {
  /** Also the Temporal workflow type. */
  readonly name: string
  readonly description: string
  readonly input: JsonSchema
}
