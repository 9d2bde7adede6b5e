import type { Page } from '#contracts/api-page.ts'
import type { DatasetView } from '#contracts/api-dataset.ts'
import type { DatasetFormat } from '#domain/dataset-file.ts'
import { inOrder, type DatasetRow } from '#domain/row-template.ts'
import { invariant } from '#domain/invariant.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'
import { pageBy } from './page.ts'

/** What is known of a file once it was read. */
export interface NewDataset {
  readonly id: string
  readonly name: string
  readonly format: DatasetFormat
  /** Of name, format and file. */
  readonly digest: Buffer
  readonly columns: readonly string[]
  readonly rows: number
  /** Of all rows as JSON, and of the largest one. */
  readonly bytes: number
  readonly mostRowBytes: number
}

export interface NumberedRow {
  /** From 1. */
  readonly number: number
  readonly row: DatasetRow
}

/** Opens a dataset, or finds the one of the same digest: its rows may be there, or a part of them. */
export async function openDataset(db: Kysely<Database>, scope: Scope, dataset: NewDataset): Promise<string> {
  const { id, name, format, digest, columns, rows, bytes, mostRowBytes } = dataset
  await sql`
    insert into dataset (id, project_id, name, format, digest, columns, row_count, bytes, most_row_bytes)
    values (${id}, ${scope.projectId}, ${name}, ${format}, ${digest}, ${[...columns]}::text[], ${rows}, ${bytes},
      ${mostRowBytes})
    on conflict (project_id, digest) do nothing`.execute(db)
  const row = await db
    .selectFrom('dataset')
    .select('id')
    .where('project_id', '=', scope.projectId)
    .where('digest', '=', digest)
    .executeTakeFirst()
  invariant(row, 'a dataset is there once it was opened')
  return row.id
}

/** Stores rows; those that are there stay. */
export async function addRows(
  db: Kysely<Database>,
  scope: Scope,
  page: { readonly datasetId: string; readonly rows: readonly NumberedRow[] },
): Promise<void> {
  await sql`
    insert into dataset_row (dataset_id, project_id, number, body)
    select ${page.datasetId}, ${scope.projectId}, r.number, r.body::jsonb
    from unnest(${page.rows.map(({ number }) => number)}::integer[], ${page.rows.map(({ row }) => json(row))}::text[])
      as r (number, body)
    on conflict (dataset_id, number) do nothing`.execute(db)
}

/** All rows are there: from here on it can be seen and used. */
export async function closeDataset(db: Kysely<Database>, scope: Scope, datasetId: string): Promise<void> {
  await db
    .updateTable('dataset')
    .set({ stored_at: sql<Date>`clock_timestamp()` })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', datasetId)
    .where('stored_at', 'is', null)
    .execute()
}

/** Undefined also while its rows are still on their way. */
export async function getDataset(
  db: Kysely<Database>,
  scope: Scope,
  datasetId: string,
): Promise<DatasetView | undefined> {
  const row = await stored(db, scope).where('id', '=', datasetId).executeTakeFirst()
  return row && viewOf(row)
}

/** A place is an id. */
export async function listDatasets(db: Kysely<Database>, scope: Scope, page: Page): Promise<readonly DatasetView[]> {
  const { follows } = pageBy(sql.ref('id'), page)
  const rows = await stored(db, scope).where(follows).orderBy('id', page.order).limit(page.limit).execute()
  return rows.map(viewOf)
}

/** A place is the number of a row. */
export async function readRows(
  db: Kysely<Database>,
  scope: Scope,
  { dataset, page }: { readonly dataset: DatasetView; readonly page: Page },
): Promise<readonly NumberedRow[]> {
  const { follows, order } = pageBy(sql`number`, page)
  const { rows } = await sql<{ number: number; body: DatasetRow }>`
    select number, body from dataset_row
    where project_id = ${scope.projectId} and dataset_id = ${dataset.id} and ${follows}
    order by ${order} limit ${page.limit}`.execute(db)
  return rows.map(({ number, body }) => ({ number, row: inOrder(body, dataset.columns) }))
}

function stored(db: Kysely<Database>, scope: Scope) {
  return db
    .selectFrom('dataset')
    .select(['id', 'name', 'format', 'columns', 'row_count', 'bytes', 'most_row_bytes', 'created_at'])
    .where('project_id', '=', scope.projectId)
    .where('stored_at', 'is not', null)
}

function viewOf(row: {
  readonly id: string
  readonly name: string
  readonly format: DatasetFormat
  readonly columns: readonly string[]
  readonly row_count: number
  readonly bytes: bigint
  readonly most_row_bytes: number
  readonly created_at: Date
}): DatasetView {
  return {
    id: row.id,
    name: row.name,
    format: row.format,
    columns: [...row.columns],
    rows: row.row_count,
    bytes: Number(row.bytes),
    mostRowBytes: row.most_row_bytes,
    createdAt: row.created_at.toISOString(),
  }
}
