import type { RunActivities } from '#contracts/activities.ts'
import type { Engine } from '#calls/engine.ts'
import { resolveAbandoned } from '#calls/lost.ts'
import type { Scope } from '#db/database.ts'
import { beginClosing, beginRun, finishRun, pauseForMoney, standingOf, tenantOfRun } from '#db/run.ts'
import { asActivity } from './failure.ts'

/** @param deps the process's one call engine */
export function createRunActivities({ engine }: { readonly engine: Engine }): RunActivities {
  const { db } = engine
  const inScope = <Result>(runId: string, work: (scope: Scope) => Promise<Result>): Promise<Result> =>
    asActivity(async () => work(await tenantOfRun(db, runId)))
  return {
    beginRun: ({ runId }) => inScope(runId, (scope) => beginRun(db, scope, runId)),
    pauseForMoney: (request) => inScope(request.runId, (scope) => pauseForMoney(db, scope, request)),
    beginClosing: (request) => inScope(request.runId, (scope) => beginClosing(db, scope, request)),
    standing: ({ runId }) => inScope(runId, (scope) => standingOf(db, scope, runId)),
    finishRun: (request) =>
      inScope(request.runId, async (scope) => {
        await resolveAbandoned(engine, scope, request.runId)
        return finishRun(db, scope, request)
      }),
  }
}
