import pg from 'pg'
import { rowOf, type Row } from './frame.ts'
import type { BenchDatabase } from './postgres.ts'

/** What the tables of calls take, with indexes and with what is stored out of line. */
export interface Sizes {
  readonly calls: number
  readonly bytes: ReadonlyMap<string, { readonly table: number; readonly indexes: number }>
}

const TABLES = ['transfer', 'attempt', 'call', 'event', 'payload'] as const

export async function bytesOfTables(database: BenchDatabase): Promise<Sizes> {
  const client = new pg.Client(database.adminUrl)
  await client.connect()
  try {
    const { rows } = await client.query<{ name: string; table_bytes: string; index_bytes: string }>(
      `select name, pg_table_size(name::regclass) as table_bytes, pg_indexes_size(name::regclass) as index_bytes
      from unnest($1::text[]) as name`,
      [TABLES],
    )
    const counted = await client.query<{ calls: string }>(`select count(*) as calls from call where state = 'answered'`)
    return {
      calls: Number(counted.rows[0]?.calls),
      bytes: new Map(
        rows.map((row) => [row.name, { table: Number(row.table_bytes), indexes: Number(row.index_bytes) }]),
      ),
    }
  } finally {
    await client.end()
  }
}

export function bytesPerCall(before: Sizes, after: Sizes): readonly Row[] {
  const calls = after.calls - before.calls
  const grown = TABLES.map((name) => ({
    name,
    table: ((after.bytes.get(name)?.table ?? 0) - (before.bytes.get(name)?.table ?? 0)) / calls,
    indexes: ((after.bytes.get(name)?.indexes ?? 0) - (before.bytes.get(name)?.indexes ?? 0)) / calls,
  }))
  const row = (metric: string, bytes: number) => rowOf({ case: 'bytes per call', metric, ours: [bytes] })
  return [
    ...grown.flatMap((each) => [row(`${each.name}, rows`, each.table), row(`${each.name}, indexes`, each.indexes)]),
    row(
      'together',
      grown.reduce((sum, each) => sum + each.table + each.indexes, 0),
    ),
  ]
}
