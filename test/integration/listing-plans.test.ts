import { listAudit } from '#db/audit.ts'
import { listCalls } from '#db/call-list.ts'
import { listCorpora } from '#db/corpus.ts'
import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { listFirings } from '#db/schedule-firing.ts'
import type { Database } from '#db/schema.ts'
import { asTenant, type Sight } from '#db/tenant-db.ts'
import { listDeliveries } from '#db/webhook-delivery.ts'
import { sql, type Kysely } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { leaveOnlyPolicies, newOwner } from '../support/every-table.ts'
import { createTestDatabase } from '../support/postgres.ts'

const MANY = 20_000
/** Rows that one page may read, however many stand beside them. */
const FEW = 200
const PAGE = { limit: 50, order: 'desc', after: undefined } as const
/** A quarter of an hour, two weeks ago: one row a minute. */
const PERIOD = { from: '2026-01-01T10:00:00Z', to: '2026-01-01T10:15:00Z' }
const MOMENT = sql`timestamptz '2026-01-01 00:00Z' + n * interval '1 minute'`

/** One project with many of everything, one a minute; few of them are of one key. */
async function useCrowd() {
  const database = await createTestDatabase()
  const db = connectDatabase({ url: database.appUrl, maxConnections: 1 })
  const admin = connectDatabase({ url: database.adminUrl, maxConnections: 1 })
  onTestFinished(async () => {
    await db.destroy()
    await admin.destroy()
    await database.drop()
  })
  await leaveOnlyPolicies(admin)
  const { organisation, project } = newOwner(newId(Date.now()))
  const [busy, rare, hook, schedule] = [1, 2, 3, 4].map((n) => newId(n))
  if (!busy || !rare || !hook || !schedule) throw new Error('four were made')
  const each = sql`from generate_series(1, ${MANY}::integer) n`
  const id = sql`lpad(to_hex(n), 32, '0')::uuid`
  for (const insert of [
    sql`insert into project (id, organisation_id, name) values (${project}, ${organisation}, 'one')`,
    sql`insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version, request_id,
        created_at)
      select ${id}, ${project}, case when n % 2 = 0 then ${id} end, ${id}, case when n % 2000 < 2 then ${rare}::uuid
        else ${busy}::uuid end, n::text, ''::bytea, 'steady', 1, ${id}, ${MOMENT} ${each}`,
    sql`insert into webhook_delivery (id, webhook_id, project_id, source, topic, body, state, created_at)
      select ${id}, ${hook}, ${project}, n::text, 'state', '{}', 'dead', ${MOMENT} ${each}`,
    sql`insert into schedule_firing (id, schedule_id, project_id, scheduled_for, skipped)
      select ${id}, ${schedule}, ${project}, ${MOMENT}, 'late' ${each}`,
    sql`insert into audit_event (id, organisation_id, action, target, at)
      select ${id}, ${organisation}, 'key.change', (n / 5)::text, ${MOMENT} ${each}`,
    sql`insert into corpus (id, project_id, name)
      select ${id}, case when n % 1000 = 0 then ${project}::uuid else ${busy}::uuid end, n::text ${each}`,
  ]) {
    await insert.execute(admin)
  }
  await sql`analyze`.execute(admin)
  return { db, organisation, project, rare, hook, schedule }
}

/** How many rows a page has, and how many were read to find them. */
async function cost(
  db: Kysely<Database>,
  sight: Sight,
  read: (db: Kysely<Database>) => Promise<readonly unknown[]>,
): Promise<{ readonly rows: number; readonly read: number }> {
  return asTenant(db, { ...sight, purpose: 'read' })
    .transaction()
    .execute(async (trx) => {
      // Counted since the connection last told the others, which may be some transactions ago.
      const before = await rowsRead(trx)
      const { length } = await read(trx)
      return { rows: length, read: (await rowsRead(trx)) - before }
    })
}

async function rowsRead(trx: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ read: number }>`
    select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as read from pg_stat_xact_user_tables`.execute(trx)
  return rows[0]?.read ?? 0
}

test('few of very many are listed by an index: of a key, of a target, of a period long ago, of a project', async () => {
  const { db, organisation, project, rare, hook, schedule } = await useCrowd()
  const scope = { projectId: project }
  for (const [what, count, list] of [
    ['calls', 20, (trx) => listCalls(trx, scope, { filter: { keyId: rare }, page: PAGE })],
    ['calls of a period', 0, (trx) => listCalls(trx, scope, { filter: { keyId: rare, ...PERIOD }, page: PAGE })],
    ['deliveries', 15, (trx) => listDeliveries(trx, scope, { ...PAGE, ...PERIOD, webhookId: hook, state: undefined })],
    ['firings', 15, (trx) => listFirings(trx, scope, { ...PAGE, ...PERIOD, scheduleId: schedule })],
    ['changes', 15, (trx) => listAudit(trx, organisation, { filter: PERIOD, page: PAGE })],
    ['changes of a target', 5, (trx) => listAudit(trx, organisation, { filter: { target: '100' }, page: PAGE })],
    ['corpora', 20, (trx) => listCorpora(trx, scope, PAGE)],
  ] as const satisfies readonly (readonly [string, number, (trx: Kysely<Database>) => Promise<readonly unknown[]>])[]) {
    const { rows, read } = await cost(db, { organisationId: organisation, projectId: null }, list)
    expect([what, rows, read < FEW ? 'few' : read]).toEqual([what, count, 'few'])
  }
})
