import { sql, type Kysely, type RawBuilder } from 'kysely'
import type { Database } from './schema.ts'

/**
 * Joins the row that another one names, or nulls where there is none. `source` is a table's name or a query; its rows are
 * called `alias`.
 */
export type Lookup = (
  source: string | RawBuilder<unknown>,
  alias: string,
  condition: RawBuilder<unknown>,
) => RawBuilder<unknown>

/**
 * Looks each row up by its key: for a piece of a table, whatever its size. A plain join could be turned into one that reads
 * all there is before the piece, for every piece anew; and was, as tables grew.
 */
export const byKey: Lookup = (source, alias, condition) => sql`left join lateral (
  select * from ${sourceOf(source)} ${sql.ref(alias)} where ${condition} limit 1) ${sql.ref(alias)} on true`

/** Joins all rows at once: for a statement over a whole table, within `withWholeTables`. */
export const bySet: Lookup = (source, alias, condition) =>
  sql`left join ${sourceOf(source)} ${sql.ref(alias)} on ${condition}`

function sourceOf(source: string | RawBuilder<unknown>): RawBuilder<unknown> {
  return typeof source === 'string' ? sql`${sql.table(source)}` : sql`(${source})`
}

/**
 * Tables are read as they lie, once, and joined by hashing, whatever the planner believes of their sizes: a row costs a
 * third of what its look-ups by key cost. Up to two million movements a join fits into `work_mem` (twice that is for one
 * hash table, of three at most); what does not is put on the disk meanwhile, so memory is bounded.
 */
const FOR_WHOLE_TABLES = {
  enable_seqscan: 'on',
  enable_nestloop: 'off',
  enable_mergejoin: 'off',
  random_page_cost: '4',
  work_mem: '128MB',
} as const

/** Runs statements over whole tables: each holds its snapshot for some seconds for every million of movements. */
export async function withWholeTables<Result>(
  db: Kysely<Database>,
  work: (trx: Kysely<Database>) => Promise<Result>,
): Promise<Result> {
  return db
    .transaction()
    .setAccessMode('read only')
    .execute(async (trx) => {
      const settings = Object.entries(FOR_WHOLE_TABLES).map(([name, value]) => sql`set_config(${name}, ${value}, true)`)
      await sql`select ${sql.join(settings)}`.execute(trx)
      return work(trx)
    })
}

/** As many movements in ten seconds are traffic that a longer snapshot would slow: 9 s of one halved it. */
const BUSY_ROWS = 1_000

/** Whether so much is written that statements must be short. */
export async function isBusy(db: Kysely<Database>): Promise<boolean> {
  const { rows } = await sql<{ isBusy: boolean }>`
    select t.recorded_at > clock_timestamp() - interval '10 seconds' as "isBusy"
    from transfer t order by t.xid desc, t.seq desc offset ${BUSY_ROWS - 1} limit 1`.execute(db)
  return rows[0]?.isBusy ?? false
}
