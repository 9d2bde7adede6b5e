/** JSON Schema (draft 2020-12) as plain data: agents declare schemas so; zod never enters the workflow bundle. */
export type JsonSchema = { readonly [key: string]: unknown }

/** What the API knows of an agent: its name and schemas as data, never its code. */
export interface AgentManifest {
  /** Also the Temporal workflow type. */
  readonly name: string
  readonly description: string
  readonly input: JsonSchema
  /** What a run with this input does at least and at most, step by step. Pure, and of no promise: limits are what holds. */
  readonly plan?: (input: unknown, facts?: PlanFacts) => readonly PlannedStep[]
}

/** What is known beside the input of a run: of the dataset that it names, say. */
export interface PlanFacts {
  readonly dataset?: { readonly rows: number; readonly bytes: number; readonly mostRowBytes: number }
}

export interface Range {
  readonly least: number
  readonly most: number
}

/** Calls of one kind that a run is going to make. */
export interface PlannedStep {
  /** Path of the calls, or what their paths begin with. */
  readonly path: string
  readonly calls: Range
  /** Of one call, in tokens. */
  readonly inputTokens: Range
  readonly outputTokens: Range
  /** Catalog model; the run's own unless given. */
  readonly model?: string
}

/**
 * The agent of runs whose calls are made outside, through the gateway. Nobody starts it by its name: such a run is opened
 * with a key of its own.
 */
export const EXTERNAL_AGENT = 'external'

/** What a run may be started with. */
export function startable(agents: readonly AgentManifest[]): readonly AgentManifest[] {
  return agents.filter(({ name }) => name !== EXTERNAL_AGENT)
}
