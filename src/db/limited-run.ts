import { sql, type Kysely } from 'kysely'
import { addCommand } from './command.ts'
import type { Scope } from './database.ts'
import { lockEnvelopes } from './envelope.ts'
import { goOn } from './run-commands.ts'
import { isLastOfItsRoute, limitHasRoom } from './refusal-room.ts'
import { moneyHasCome } from './run-pause.ts'
import { lockPlace } from './run.ts'
import type { Database } from './schema.ts'

/** Most runs of one turn; the next one goes on. */
const MAX_RUNS = 100

interface LimitedRun extends Scope {
  readonly runId: string
  readonly envelopeId: string
  readonly refusalId: string
}

/**
 * Lets runs go on whose call a limit had refused on any of its routes, once its window has ended, its cap was raised or it
 * was retired. Each in a transaction of its own, locked as a top-up locks; of many at once one finds the run paused.
 */
export async function resumeLimitedRuns(db: Kysely<Database>, nowMs: number): Promise<number> {
  let resumed = 0
  for (const run of await limitedRuns(db)) if (await resume(db, run, nowMs)) resumed += 1
  return resumed
}

async function limitedRuns(db: Kysely<Database>): Promise<readonly LimitedRun[]> {
  const { rows } = await sql<LimitedRun>`
    select run.project_id as "projectId", run.id as "runId", run.envelope_id as "envelopeId", told.hold_id as "refusalId"
    from run
    join refusal told on told.hold_id = (run.stop->>'refusalId')::uuid
    where run.state = 'paused' and run.reason = 'money_exhausted' and exists (
      select from refusal r
      where r.call_id = told.call_id and r.bound = 'limit' and ${limitHasRoom} and ${isLastOfItsRoute}
    )
    limit ${MAX_RUNS}`.execute(db)
  return rows
}

function resume(db: Kysely<Database>, run: LimitedRun, nowMs: number): Promise<boolean> {
  const { projectId, runId, envelopeId, refusalId } = run
  const scope = { projectId }
  return db.transaction().execute(async (trx) => {
    await lockEnvelopes(trx, scope, envelopeId)
    // Its owner may have paused or stopped it since it was found.
    const { place } = await lockPlace(trx, scope, runId)
    if (place !== 'money_exhausted' || !(await moneyHasCome(trx, scope, refusalId))) return false
    await goOn(trx, scope, { runId, envelopeId, reason: 'limit_reset' })
    await addCommand(trx, scope, { runId, kind: 'resume', body: { refusalId }, nowMs })
    return true
  })
}
