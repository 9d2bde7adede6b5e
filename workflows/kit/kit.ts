import type { KitMessage } from '#contracts/activities.ts'
import type { JsonSchema } from '#contracts/agents.ts'
import type { ToolCatalog, ToolName } from '#contracts/tools.ts'
import { invariant } from '#domain/invariant.ts'
import { boundedMap } from './bounded-map.ts'
import { answerOf, type Answered } from './chat.ts'
import { fitsHistory } from './finish.ts'
import type { FromSchema } from './from-schema.ts'
import { tool } from './ports.ts'
import type { RunControl } from './run-control.ts'
import { ToolFailed } from './stop.ts'

/** Of a call within its run, such as `plan` or `read/2`: part of the call's key and of the report. */
const PATH = /^[a-z0-9][a-z0-9_/-]{0,99}$/

export interface Prompt {
  readonly messages: readonly KitMessage[]
  /** Most output tokens. */
  readonly maxTokens: number
  /** Catalog model; the one the run was started with unless given. */
  readonly model?: string
}

export interface ObjectSchema {
  readonly name: string
  readonly schema: JsonSchema
}

/**
 * Everything an agent may do. Whatever it does besides is neither replayed, paid for nor stopped with the run. Each kit
 * call may throw `Stop` (see there): let it through.
 */
export class Kit {
  readonly #runId: string
  readonly #model: string
  readonly #control: RunControl
  readonly #paths = new Set<string>()

  constructor(run: { readonly runId: string; readonly model: string; readonly control: RunControl }) {
    this.#runId = run.runId
    this.#model = run.model
    this.#control = run.control
  }

  /**
   * One model call whose answer is an object of a schema.
   *
   * @throws CallFailed when there is no answer, or none of the schema
   */
  chat<const Schema extends ObjectSchema>(
    path: string,
    prompt: Prompt & { readonly schema: Schema },
  ): Promise<Answered & { readonly object: FromSchema<Schema['schema']> }>
  /**
   * One model call. `text` is absent when it is too large for a workflow's history; `ref` leads to it in any case.
   *
   * @throws CallFailed when there is no answer
   */
  chat(path: string, prompt: Prompt): Promise<Answered>
  chat(path: string, prompt: Prompt & { readonly schema?: ObjectSchema }): Promise<Answered> {
    const request = { model: this.#model, ...prompt, runId: this.#runId, path: this.#claim(path) }
    return this.#control.guard(() => answerOf(this.#control, request))
  }

  /**
   * One use of a tool. `value` is small; everything large is behind `ref`.
   *
   * @throws ToolFailed
   */
  tool<Name extends ToolName>(
    path: string,
    name: Name,
    input: ToolCatalog[Name]['input'],
  ): Promise<{ readonly ref: string; readonly value: ToolCatalog[Name]['value'] }>
  tool(path: string, name: string, input: unknown): Promise<{ readonly ref: string; readonly value: unknown }> {
    const request = { runId: this.#runId, path: this.#claim(path), tool: name, input }
    return this.#control.guard(async () => {
      const result = await tool.executeWithOptions({ summary: `${path} · ${name}` }, [request])
      if (result.kind === 'done') return result
      this.#control.throwIfStopped()
      throw new ToolFailed(path, result.reason, result.detail)
    })
  }

  /** Keeps the latest deliverable: what the run delivers when it is stopped before the agent returns. */
  checkpoint(draft: unknown): void {
    invariant(
      fitsHistory(draft),
      'a checkpoint is larger than a workflow history takes: store it with a tool, keep its ref',
    )
    this.#control.draft = draft
  }

  /** Works on every item, at most `limit` at a time; results are in the order of the items. */
  map<Item, Result>(
    items: readonly Item[],
    limit: number,
    work: (item: Item, index: number) => Promise<Result>,
  ): Promise<Result[]> {
    return boundedMap(items, limit, work)
  }

  #claim(path: string): string {
    invariant(PATH.test(path), `${path} is no path: use lower-case letters, digits and _ / -`)
    invariant(!this.#paths.has(path), `${path} is used twice: number the calls of a loop`)
    this.#paths.add(path)
    return path
  }
}
