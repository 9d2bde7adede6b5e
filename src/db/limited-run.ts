import { sql, type Kysely } from 'kysely'
import { addCommand } from './command.ts'
import type { Scope } from './database.ts'
import { lockEnvelopes } from './envelope.ts'
import { goOn } from './run-commands.ts'
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
 * Lets runs go on that a limit had paused, once its window has ended, its cap was raised or it was retired. Each in a
 * transaction of its own, locked as a top-up locks; of many at once one finds the run paused.
 */
export async function resumeLimitedRuns(db: Kysely<Database>, nowMs: number): Promise<number> {
  let resumed = 0
  for (const run of await limitedRuns(db)) if (await resume(db, run, nowMs)) resumed += 1
  return resumed
}

async function limitedRuns(db: Kysely<Database>): Promise<readonly LimitedRun[]> {
  const { rows } = await sql<LimitedRun>`
    select r.project_id as "projectId", r.id as "runId", r.envelope_id as "envelopeId", f.hold_id as "refusalId"
    from run r
    join refusal f on f.hold_id = (r.stop->>'refusalId')::uuid and f.bound = 'limit'
    left join usage_limit l on l.id = f.limit_id
    where r.state = 'paused' and r.reason = 'money_exhausted'
      and (f.asked <= f.cap and f.resets_at <= clock_timestamp() or l.retired_at is not null or l.cap > f.cap)
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
