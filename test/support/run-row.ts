import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'

/** How a run stands by its row, and the gate of its envelope. */
export function runRow({ db }: { readonly db: Kysely<Database> }, runId: string) {
  return db
    .selectFrom('run')
    .innerJoin('envelope', 'envelope.id', 'run.envelope_id')
    .select(['run.state', 'run.reason', 'envelope.gate'])
    .where('run.id', '=', runId)
    .executeTakeFirstOrThrow()
}
