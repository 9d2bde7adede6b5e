import type { Idle } from '#contracts/activities.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { lockEnvelopes } from './envelope.ts'
import { setGate } from './ledger.ts'
import { lockPlace, markEnding, runQuery } from './run.ts'
import type { Database } from './schema.ts'

/**
 * Ends a run that is running and has made no call for so long: from this commit on no request begins. A call that is in
 * flight keeps it busy, and so does everything that happens to it. Asked again, it answers the same.
 */
export async function endIfIdle(
  db: Kysely<Database>,
  scope: Scope,
  { runId, idleMs }: { readonly runId: string; readonly idleMs: number },
): Promise<Idle> {
  return db.transaction().execute(async (trx) => {
    const { envelope_id: envelopeId } = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
    await lockEnvelopes(trx, scope, envelopeId)
    const { place } = await lockPlace(trx, scope, runId)
    const run = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
    if (run.ending_at !== null && run.reason === 'idle') return { isOver: true, leftMs: 0 }
    // A pause has a deadline of its own, and what ends is told otherwise.
    const leftMs = place === 'running' ? await timeLeftMs(trx, { runId, idleMs }) : idleMs
    if (leftMs > 0) return { isOver: false, leftMs }
    await setGate(trx, scope, { envelopeId, gate: 'closing', reason: 'idle' })
    const detail = `Nothing was asked for ${Math.round(idleMs / 1_000)} seconds.`
    await markEnding(trx, scope, { runId, why: { reason: 'idle', detail } })
    return { isOver: true, leftMs: 0 }
  })
}

/** By the database's clock; nothing is left when it is negative. */
async function timeLeftMs(
  trx: Transaction<Database>,
  { runId, idleMs }: { readonly runId: string; readonly idleMs: number },
): Promise<number> {
  const { rows } = await sql<{ idleForMs: number; isBusy: boolean }>`
    select 1000 * extract(epoch from clock_timestamp() - greatest(r.created_at,
        (select max(c.created_at) from call c where c.run_id = r.id),
        (select e.recorded_at from event e where e.run_id = r.id order by e.xid desc, e.seq desc limit 1)
      ))::float8 as "idleForMs",
      exists (select from attempt a where a.envelope_id = r.envelope_id and a.state = 'sent') as "isBusy"
    from run r where r.id = ${runId}`.execute(trx)
  const { idleForMs = 0, isBusy = true } = rows[0] ?? {}
  return isBusy ? idleMs : Math.ceil(idleMs - idleForMs)
}
