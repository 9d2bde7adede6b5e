import { rowAskSchema, type RowAsk } from '#contracts/row-map.ts'
import { inOrder, type DatasetRow } from '#domain/row-template.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { NumberedRow } from './dataset.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** A map of a run: one prompt over the rows of a dataset. */
export interface RowMapKey {
  readonly runId: string
  readonly path: string
}

export interface RowMap extends RowMapKey {
  readonly datasetId: string
  readonly columns: readonly string[]
  readonly rows: number
  readonly ask: RowAsk
}

/** Keeps what a map asks; what is kept already stays. False when that is something else. */
export async function openRowMap(
  db: Kysely<Database>,
  scope: Scope,
  map: RowMapKey & { readonly datasetId: string; readonly ask: RowAsk },
): Promise<boolean> {
  const ask = json(map.ask)
  await db
    .insertInto('run_map')
    .values({
      run_id: map.runId,
      path: map.path,
      project_id: scope.projectId,
      dataset_id: map.datasetId,
      ask,
    })
    .onConflict((conflict) => conflict.columns(['run_id', 'path']).doNothing())
    .execute()
  const { rows } = await sql<{ same: boolean }>`
    select dataset_id = ${map.datasetId} and ask = ${ask}::jsonb as same from run_map
    where project_id = ${scope.projectId} and run_id = ${map.runId} and path = ${map.path}`.execute(db)
  return rows[0]?.same === true
}

/** Those of a run, in the order in which they were opened. */
export async function rowMapsOf(db: Kysely<Database>, scope: Scope, runId: string): Promise<readonly RowMap[]> {
  const rows = await db
    .selectFrom('run_map')
    .innerJoin('dataset', 'dataset.id', 'run_map.dataset_id')
    .select(['run_map.path', 'run_map.ask', 'dataset.id', 'dataset.columns', 'dataset.row_count'])
    .where('run_map.project_id', '=', scope.projectId)
    .where('run_map.run_id', '=', runId)
    .orderBy('run_map.created_at')
    .orderBy('run_map.path')
    .execute()
  return rows.map(({ path, ask, id, columns, row_count }) => {
    return { runId, path, datasetId: id, columns, rows: row_count, ask: rowAskSchema.parse(ask) }
  })
}

export async function getRowMap(db: Kysely<Database>, scope: Scope, key: RowMapKey): Promise<RowMap | undefined> {
  return (await rowMapsOf(db, scope, key.runId)).find(({ path }) => path === key.path)
}

/** Rows `from` to `to`, both included. */
export interface RowRange {
  readonly from: number
  readonly to: number
}

export interface RowsStanding {
  readonly answered: number
  readonly failed: number
  /** Those of the failed ones that may have been executed and were not sent again. */
  readonly unsure: readonly number[]
  /** Those without a final outcome, with what they hold. */
  readonly open: readonly NumberedRow[]
}

interface StandingRow {
  readonly number: number
  readonly outcome: 'answered' | 'failed' | 'open' | null
  readonly reason: string | null
  readonly body: DatasetRow
}

/** Why a row has failed that may have been executed. */
const UNSURE = 'repeat_not_allowed'

/** Whether it failed because it may have been executed, and may not be sent again unless its owner says so. */
export function isUnsure(row: { readonly outcome: unknown; readonly reason?: string | null | undefined }): boolean {
  return row.outcome === 'failed' && row.reason === UNSURE
}

/** How rows stand, and what is to be done, in one look. */
export async function rowsStanding(
  db: Kysely<Database>,
  scope: Scope,
  { map, range }: { readonly map: RowMap; readonly range: RowRange },
): Promise<RowsStanding> {
  const { rows } = await sql<StandingRow>`
    select r.number, m.outcome, m.reason, case when m.outcome in ('answered', 'failed') then null else r.body end as body
    from dataset_row r
    left join run_map_row m on m.run_id = ${map.runId} and m.path = ${map.path} and m.number = r.number
    where r.project_id = ${scope.projectId} and r.dataset_id = ${map.datasetId}
      and r.number between ${range.from} and ${range.to}
    order by r.number`.execute(db)
  const count = (wanted: string): number => rows.filter(({ outcome }) => outcome === wanted).length
  return {
    answered: count('answered'),
    failed: count('failed'),
    unsure: rows.filter(isUnsure).map(({ number }) => number),
    open: rows
      .filter(({ outcome }) => outcome !== 'answered' && outcome !== 'failed')
      .map(({ number, body }) => ({ number, row: inOrder(body, map.columns) })),
  }
}

/** What became of a row. */
export interface RowOutcome {
  readonly number: number
  readonly outcome: 'answered' | 'failed' | 'open'
  readonly callId?: string | undefined
  readonly reason?: string | undefined
  readonly detail?: string | undefined
}

/** Takes back the errors of rows that may have been executed: their owner lets them be sent again. */
export async function reopenUnsure(
  db: Kysely<Database>,
  scope: Scope,
  { map, range }: { readonly map: RowMapKey; readonly range: RowRange },
): Promise<void> {
  await sql`
    update run_map_row set outcome = 'open', reason = null, detail = null, recorded_at = clock_timestamp()
    where project_id = ${scope.projectId} and run_id = ${map.runId} and path = ${map.path}
      and number between ${range.from} and ${range.to} and outcome = 'failed' and reason = ${UNSURE}`.execute(db)
}

/** Records outcomes; final ones stay. A row that was asked by another call before keeps both. */
export async function recordRows(
  db: Kysely<Database>,
  scope: Scope,
  { map, outcomes }: { readonly map: RowMapKey; readonly outcomes: readonly RowOutcome[] },
): Promise<void> {
  if (outcomes.length === 0) return
  await sql`
    insert into run_map_row as known (run_id, path, number, project_id, outcome, call_ids, reason, detail)
    select ${map.runId}, ${map.path}, r.number, ${scope.projectId}, r.outcome, array_remove(array[r.call_id], null),
      r.reason, r.detail
    from unnest(
      ${outcomes.map(({ number }) => number)}::integer[],
      ${outcomes.map(({ outcome }) => outcome)}::text[],
      ${outcomes.map(({ callId }) => callId ?? null)}::uuid[],
      ${outcomes.map(({ reason }) => reason ?? null)}::text[],
      ${outcomes.map(({ detail }) => detail ?? null)}::text[]
    ) as r (number, outcome, call_id, reason, detail)
    order by r.number
    on conflict (run_id, path, number) do update
    set outcome = excluded.outcome, reason = excluded.reason, detail = excluded.detail, recorded_at = clock_timestamp(),
      call_ids = case when cardinality(excluded.call_ids) = 0 then known.call_ids
        else array_remove(known.call_ids, excluded.call_ids[1]) || excluded.call_ids end
    where known.outcome = 'open'`.execute(db)
}

/** Those of the calls that have an answer, with its text. */
export async function answersOf(
  db: Kysely<Database>,
  scope: Scope,
  callIds: readonly string[],
): Promise<ReadonlyMap<string, unknown>> {
  const { rows } = await sql<{ id: string; body: unknown }>`
    select c.id, p.body from call c join payload p on p.id = c.answer_id
    where c.project_id = ${scope.projectId} and c.id = any(${[...callIds]}::uuid[])`.execute(db)
  return new Map(rows.map(({ id, body }) => [id, body]))
}

export interface RowCounts {
  readonly rows: number
  readonly answered: number
  readonly failed: number
}

export async function countRows(db: Kysely<Database>, scope: Scope, map: RowMap): Promise<RowCounts> {
  const { rows } = await sql<{ answered: number; failed: number }>`
    select count(*) filter (where outcome = 'answered')::integer as answered,
      count(*) filter (where outcome = 'failed')::integer as failed
    from run_map_row
    where project_id = ${scope.projectId} and run_id = ${map.runId} and path = ${map.path}`.execute(db)
  return { rows: map.rows, answered: rows[0]?.answered ?? 0, failed: rows[0]?.failed ?? 0 }
}
