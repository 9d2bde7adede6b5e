import { WAKE_SIGNAL, type RunEnd } from '#contracts/activities.ts'
import type { AgentManifest, JsonSchema } from '#contracts/agents.ts'
import { CancellationScope, defineSignal, setHandler } from '@temporalio/workflow'
import { Kit } from './kit/kit.ts'
import { finish, type AgentResult } from './kit/finish.ts'
import type { FromSchema } from './kit/from-schema.ts'
import { beginRun } from './kit/ports.ts'
import { RunControl } from './kit/run-control.ts'

export { fitsHistory } from './kit/finish.ts'
export type { Kit } from './kit/kit.ts'
export type { FromSchema } from './kit/from-schema.ts'
export { CallFailed, ToolFailed } from './kit/stop.ts'

/** A workflow that runs an agent, and what the API may know of the agent. */
export type Agent = ((run: { readonly runId: string }) => Promise<RunEnd>) & { readonly manifest: AgentManifest }

interface AgentDefinition<Schema> {
  /** Also the workflow type: export the agent under this name from `workflows/index.ts`. */
  readonly name: string
  readonly description: string
  readonly input: Schema
  /** Returns the run's output: at most `MAX_VALUE_BYTES`. */
  run(kit: Kit, input: FromSchema<Schema>): Promise<unknown>
}

const wake = defineSignal(WAKE_SIGNAL)

/** Makes an agent of a function on the kit. The API has checked `input` against the schema before the run began. */
export function defineAgent<const Schema extends JsonSchema>(definition: AgentDefinition<Schema>): Agent {
  const { name, description, input } = definition
  const workflow = ({ runId }: { readonly runId: string }): Promise<RunEnd> =>
    runAgent(runId, (kit, given) => {
      // oxlint-disable-next-line typescript/consistent-type-assertions -- checked at the edge; no validator is bundled here
      return definition.run(kit, given as FromSchema<Schema>)
    })
  return Object.assign(workflow, { manifest: { name, description, input } })
}

type AgentBody = (kit: Kit, input: unknown) => Promise<unknown>

/** Everything below is shielded from Temporal's own cancel, which is one more way to be told to stop. */
async function runAgent(runId: string, body: AgentBody): Promise<RunEnd> {
  const cancelRequested = CancellationScope.current().cancelRequested
  return CancellationScope.nonCancellable(async () => {
    const control = new RunControl(runId)
    setHandler(wake, () => control.wake())
    cancelRequested.catch(() => control.abort('The workflow was cancelled in Temporal.'))
    return finish(control, runId, await resultOf(runId, control, body))
  })
}

async function resultOf(runId: string, control: RunControl, body: AgentBody): Promise<AgentResult> {
  try {
    const begun = await beginRun({ runId })
    if ('closing' in begun) throw control.cancel('The run was told to stop before it began.')
    control.begin(begun)
    return { ok: true, output: await body(new Kit({ runId, model: begun.model, control }), begun.input) }
  } catch (error) {
    return { ok: false, error }
  }
}
