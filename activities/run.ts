import type { ChildOpening, ChildRequest, RunActivities } from '#contracts/activities.ts'
import type { Engine } from '#calls/engine.ts'
import { resolveAbandoned } from '#calls/lost.ts'
import type { Scope } from '#db/database.ts'
import { EXTERNAL_AGENT, type AgentManifest } from '#contracts/agents.ts'
import { checkJsonSchema } from '#contracts/json-schema.ts'
import { readBudget } from '#db/budget.ts'
import { childEnd, openChildRun } from '#db/child-run.ts'
import { beginRun } from '#db/run-begin.ts'
import { beginClosing, finishRun } from '#db/run-end.ts'
import { endIfIdle } from '#db/run-idle.ts'
import { askOwner, downgradeRun, pauseForMoney } from '#db/run-pause.ts'
import { standingOf } from '#db/run.ts'
import { asActivity } from './failure.ts'

interface RunDependencies {
  /** The process's one call engine. */
  readonly engine: Engine
  /** What the input of a child run is checked against. */
  readonly agents: readonly AgentManifest[]
}

export function createRunActivities({ engine, agents }: RunDependencies): RunActivities {
  const { db } = engine
  const inScope = <Result>(runId: string, work: (scope: Scope) => Promise<Result>): Promise<Result> =>
    // The first call of a run needs these facts anyway: read once, they spare each of its activities a query.
    asActivity(async () => work((await engine.shelf.run(runId)).scope))
  return {
    beginRun: ({ runId }) => inScope(runId, (scope) => beginRun(db, scope, runId)),
    pauseForMoney: (request) => inScope(request.runId, (scope) => pauseForMoney(db, scope, request)),
    beginClosing: (request) => inScope(request.runId, (scope) => beginClosing(db, scope, request)),
    standing: ({ runId }) => inScope(runId, (scope) => standingOf(db, scope, runId)),
    downgradeRun: (request) => inScope(request.runId, (scope) => downgradeRun(db, scope, request)),
    askOwner: (request) => inScope(request.runId, (scope) => askOwner(db, scope, request)),
    openChild: (request) =>
      inScope(request.runId, async (scope) => {
        const checked = checkChild(agents, request)
        return checked.ok ? openChildRun(db, scope, { ...request, input: checked.input }) : checked.refusal
      }),
    endIfIdle: (request) => inScope(request.runId, (scope) => endIfIdle(db, scope, request)),
    childEnd: ({ runId }) => inScope(runId, (scope) => childEnd(db, scope, runId)),
    budget: (request) => inScope(request.runId, (scope) => readBudget(db, scope, request)),
    finishRun: (request) =>
      inScope(request.runId, async (scope) => {
        await resolveAbandoned(engine, scope, request.runId)
        return finishRun(db, scope, request)
      }),
  }
}

type CheckedChild =
  | { readonly ok: true; readonly input: unknown }
  | { readonly ok: false; readonly refusal: ChildOpening }

/** As the API checks what starts a run: the agent, and its input with the defaults filled in. */
function checkChild(agents: readonly AgentManifest[], { agent, input }: ChildRequest): CheckedChild {
  const manifest = agents.find(({ name }) => name === agent)
  const refuse = (reason: string, detail: string): CheckedChild => ({
    ok: false,
    refusal: { kind: 'refused', reason, detail },
  })
  if (!manifest || agent === EXTERNAL_AGENT) return refuse('unknown_agent', `there is no agent ${agent}`)
  const checked = checkJsonSchema(manifest.input, input)
  return checked.ok ? { ok: true, input: checked.value } : refuse('invalid_input', checked.detail)
}
