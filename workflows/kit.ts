import { WAKE_SIGNAL, type RunEnd } from '#contracts/activities.ts'
import type { AgentManifest, JsonSchema, PlanFacts, PlannedStep } from '#contracts/agents.ts'
import { CancellationScope, continueAsNew, defineSignal, setHandler } from '@temporalio/workflow'
import { Kit } from './kit/kit.ts'
import { finish, type AgentResult } from './kit/finish.ts'
import type { FromSchema } from './kit/from-schema.ts'
import { beginRun } from './kit/ports.ts'
import { RunControl } from './kit/run-control.ts'
import { Rollover } from './kit/stop.ts'

export { fitsHistory } from './kit/finish.ts'
export type { Kit } from './kit/kit.ts'
export type { FromSchema } from './kit/from-schema.ts'
export { CallFailed, ChildFailed, ToolFailed } from './kit/stop.ts'

/** What a run's workflow is started with: its id, and what an earlier history of it carried over. */
export interface RunStart {
  readonly runId: string
  readonly carried?: { readonly state: unknown; readonly draft: unknown }
}

/** A workflow that runs an agent, and what the API may know of the agent. */
export type Agent = ((run: RunStart) => Promise<RunEnd>) & { readonly manifest: AgentManifest }

interface AgentDefinition<Schema> {
  /** Also the workflow type: export the agent under this name from `workflows/index.ts`. */
  readonly name: string
  readonly description: string
  readonly input: Schema
  /** What a run with this input does, for a dry run. Pure: neither clock nor kit. */
  plan?(input: FromSchema<Schema>, facts: PlanFacts): readonly PlannedStep[]
  /** Returns the run's output: at most `MAX_VALUE_BYTES`. */
  run(kit: Kit, input: FromSchema<Schema>): Promise<unknown>
  /**
   * Makes something deliverable of what was done when a run is stopped, paid from its wrap-up reserve. `draft` is the
   * latest checkpoint. Without it, and when it fails, the draft itself is delivered.
   */
  wrapUp?(kit: Kit, input: FromSchema<Schema>, draft: unknown): Promise<unknown>
}

const wake = defineSignal(WAKE_SIGNAL)

/** Makes an agent of a function on the kit. The API has checked `input` against the schema before the run began. */
export function defineAgent<const Schema extends JsonSchema>(definition: AgentDefinition<Schema>): Agent {
  const { name, description, input } = definition
  // oxlint-disable-next-line typescript/consistent-type-assertions -- checked at the edge; no validator is bundled here
  const typed = (given: unknown) => given as FromSchema<Schema>
  const body: AgentBody = {
    run: (kit, given) => definition.run(kit, typed(given)),
    ...(definition.wrapUp && { wrapUp: async (kit, given, draft) => definition.wrapUp?.(kit, typed(given), draft) }),
  }
  const manifest = {
    name,
    description,
    input,
    ...(definition.plan && {
      plan: (given: unknown, facts: PlanFacts = {}) => definition.plan?.(typed(given), facts) ?? [],
    }),
  }
  return Object.assign((run: RunStart): Promise<RunEnd> => runAgent(run, body), { manifest })
}

interface AgentBody {
  run(kit: Kit, input: unknown): Promise<unknown>
  wrapUp?(kit: Kit, input: unknown, draft: unknown): Promise<unknown>
}

/** A run on its way: its two phases hear the same wakes. */
interface Life {
  readonly run: RunStart
  readonly control: RunControl
  readonly delivery: RunControl
  begun: { readonly input: unknown; readonly model: string } | undefined
}

/** Everything below is shielded from Temporal's own cancel, which is one more way to be told to stop. */
async function runAgent(run: RunStart, body: AgentBody): Promise<RunEnd> {
  const cancelRequested = CancellationScope.current().cancelRequested
  return CancellationScope.nonCancellable(async () => {
    const control = new RunControl(run.runId)
    const delivery = new RunControl(run.runId, 'wrap_up')
    const life: Life = { run, control, delivery, begun: undefined }
    control.draft = run.carried?.draft
    setHandler(wake, () => {
      control.wake()
      delivery.wake()
    })
    cancelRequested.catch(() => {
      const detail = 'The workflow was cancelled in Temporal.'
      control.abort(detail)
      delivery.cancel(detail)
    })
    const result = await resultOf(life, body)
    return finish({ control, delivery }, result, body.wrapUp && ((draft) => wrapUpOf(life, body, draft)))
  })
}

async function resultOf(life: Life, body: AgentBody): Promise<AgentResult> {
  const { run, control } = life
  try {
    const begun = await beginRun({ runId: run.runId })
    if ('closing' in begun) throw control.cancel('The run was told to stop before it began.')
    const { input, model, ...rules } = begun
    life.begun = { input, model }
    control.begin(rules)
    const kit = new Kit({ runId: run.runId, model, control, resumed: run.carried?.state })
    return { ok: true, output: await body.run(kit, input) }
  } catch (error) {
    if (error instanceof Rollover) await goOn(life, error)
    return { ok: false, error }
  }
}

/** The same run in a new history. */
function goOn({ run, control }: Life, { state }: Rollover): Promise<never> {
  return continueAsNew<(next: RunStart) => Promise<RunEnd>>({
    runId: run.runId,
    carried: { state, draft: control.draft },
  })
}

async function wrapUpOf({ run, control, delivery, begun }: Life, body: AgentBody, draft: unknown): Promise<unknown> {
  if (!begun || !body.wrapUp || !control.rules) return draft
  delivery.begin({ ...control.rules, downgraded: control.downgraded })
  const kit = new Kit({ runId: run.runId, model: begun.model, control: delivery, isWrapUp: true })
  return body.wrapUp(kit, begun.input, draft)
}
