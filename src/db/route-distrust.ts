import type { Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { addEvent } from './event.ts'
import type { RouteKey } from './route-turn.ts'
import type { Database } from './schema.ts'

/** Tells a run that a route billed above the hold of one of its attempts, and by how much its holds are raised now. */
export function noteDistrust(
  db: Kysely<Database>,
  scope: Scope,
  excess: RouteKey & {
    readonly runId: string
    readonly callId: string
    readonly attempt: number
    readonly route: string
    readonly currency: string
    readonly held: bigint
    readonly charged: bigint
    readonly distrustPpm: number
  },
): Promise<void> {
  const { runId, held, charged, ...facts } = excess
  const data = { ...facts, heldNano: held.toString(), chargedNano: charged.toString() }
  return db.transaction().execute((trx) => addEvent(trx, scope, { runId, kind: 'route.distrusted', data }))
}
