import type { Budget, KitMessage, PocketMoney } from '#contracts/activities.ts'
import type { JsonSchema } from '#contracts/agents.ts'
import type { ToolCatalog, ToolName } from '#contracts/tools.ts'
import { invariant } from '#domain/invariant.ts'
import { workflowInfo } from '@temporalio/workflow'
import { askOwner, type Question } from './ask.ts'
import { boundedMap } from './bounded-map.ts'
import { answerOf, type Answered } from './chat.ts'
import { runChild, type ChildResult } from './children.ts'
import { fitsHistory } from './finish.ts'
import type { FromSchema } from './from-schema.ts'
import { waitWhileBusy } from './idle.ts'
import { mapDataset, type MapResult, type RowMap } from './map.ts'
import { budget, tool } from './ports.ts'
import type { RunControl } from './run-control.ts'
import { Rollover, ToolFailed } from './stop.ts'

/** Of a call within its run, such as `plan` or `read/2`: part of the call's key and of the report. */
const PATH = /^[a-z0-9][a-z0-9_/-]{0,99}$/
/** Events after which a history is long. Temporal ends a workflow at 51,200. */
const LONG_HISTORY = 8_000
/** What a stopped run calls while it delivers is told apart from its work. */
const WRAP_UP = 'wrap_up/'

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

export interface Child {
  /** Name of its agent. */
  readonly agent: string
  readonly input: unknown
  /** Catalog model; this run's unless given. */
  readonly model?: string
  /** What is carved for it, and the most it may have; without it, it spends what this run has left, and never more. */
  readonly budget?: readonly PocketMoney[]
}

/**
 * Everything an agent may do. Whatever it does besides is neither replayed, paid for nor stopped with the run. Each kit
 * call may throw `Stop` (see there): let it through.
 */
export class Kit {
  readonly #runId: string
  readonly #model: string
  readonly #control: RunControl
  readonly #prefix: string
  readonly #paths = new Set<string>()
  /** What `rollover` was given in an earlier history of this run; undefined in its first. */
  readonly resumed: unknown

  constructor(run: {
    readonly runId: string
    readonly model: string
    readonly control: RunControl
    readonly isWrapUp?: boolean
    readonly resumed?: unknown
  }) {
    this.#runId = run.runId
    this.#model = run.model
    this.#control = run.control
    this.#prefix = run.isWrapUp ? WRAP_UP : ''
    this.resumed = run.resumed
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
    const request = {
      model: this.#model,
      ...prompt,
      runId: this.#runId,
      path: this.#claim(path),
      ...(this.#prefix && { wrapUp: true as const }),
    }
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
      const result = await tool.executeWithOptions({ summary: `${request.path} · ${name}` }, [request])
      if (result.kind === 'done') return result
      this.#control.throwIfStopped()
      throw new ToolFailed(path, result.reason, result.detail)
    })
  }

  /**
   * Runs another agent as a child run and waits for its end. Its money is carved from what this run has left before it
   * starts; it is stopped with this run, and what it did not spend comes back.
   *
   * @throws ChildFailed when it is refused (it asks for more than is left, say), is cancelled or fails
   */
  child(path: string, child: Child): Promise<ChildResult> {
    const request = { model: this.#model, ...child, runId: this.#runId, path: this.#claim(path) }
    return this.#control.guardChild(() => runChild(this.#control, request))
  }

  /**
   * Asks one prompt about each row of a dataset, in many calls with paths such as `<path>/7`. A row that fails stops no other.
   * For more rows than one history takes: in parts, with `rollover` between them.
   *
   * @throws CallFailed when the dataset or a column does not exist
   */
  map(path: string, map: RowMap): Promise<MapResult> {
    this.#claim(`${path}/${map.from ?? 1}`)
    const order = {
      runId: this.#runId,
      path: this.#prefix + path,
      map: { model: this.#model, ...map },
      ...(this.#prefix && { wrapUp: true as const }),
    }
    return this.#control.guard(() => mapDataset(this.#control, order))
  }

  /** Asks the run's owner, and waits for the answer: the run is paused for input meanwhile. Not while it delivers. */
  ask(path: string, question: Question): Promise<string> {
    invariant(this.#prefix === '', 'a run that delivers cannot ask: nobody can answer it any more')
    const claimed = this.#claim(path)
    return this.#control.guard(() => askOwner(this.#control, claimed, question))
  }

  /** What the run has left, as of now: it may be less in a moment. While it delivers that is its reserve. */
  budget(): Promise<Budget> {
    const request = { runId: this.#runId, ...(this.#prefix && { wrapUp: true as const }) }
    return this.#control.guard(() => budget(request))
  }

  /**
   * Waits until the run may have been idle for so long: nothing was asked through its own key. Ends the run when it has
   * been; returns when it is to be looked at again.
   */
  idle(idleMs: number): Promise<void> {
    return this.#control.guard(() => waitWhileBusy(this.#control, idleMs))
  }

  /** Keeps the latest deliverable: what the run delivers when it is stopped before the agent returns. */
  checkpoint(draft: unknown): void {
    invariant(
      fitsHistory(draft),
      'a checkpoint is larger than a workflow history takes: store it with a tool, keep its ref',
    )
    this.#control.draft = draft
  }

  /**
   * For agents that make hundreds of calls: goes on in a new history when this one is long. The agent's function is then
   * called again with `kit.resumed` = `state`, and has to go on from there; what a call of the same path and request has
   * answered before is answered again, at no cost. Call it where nothing is in flight, such as at the end of a round.
   *
   * @param state at most `MAX_VALUE_BYTES` as JSON: ids and counters
   * @param options.longAfter in events; Temporal's own advice is followed besides
   */
  async rollover(state: unknown, { longAfter = LONG_HISTORY }: { readonly longAfter?: number } = {}): Promise<void> {
    invariant(fitsHistory(state), 'what a rollover carries is larger than a workflow history takes: carry ids')
    const { continueAsNewSuggested, historyLength } = workflowInfo()
    if (!continueAsNewSuggested && historyLength < longAfter) return
    this.#control.throwIfStopped()
    await this.#control.inFlight.settled()
    this.#control.throwIfStopped()
    throw new Rollover(state)
  }

  /** Works on every item, at most `limit` at a time; results are in the order of the items. */
  each<Item, Result>(
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
    return this.#prefix + path
  }
}
