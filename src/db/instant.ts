import { sql, type Kysely, type RawBuilder } from 'kysely'
import type { Database } from './schema.ts'

/** A moment of the database's clock, in microseconds: `2026-11-24T03:40:28.000001Z`. Texts of this form sort by time. */
export interface Instant {
  readonly at: string
  /** Nothing can appear at or before it any more: it is older than the longest write transaction. */
  readonly final: boolean
}

/** An instant as text, the same wherever one is written. */
export function instantText(moment: RawBuilder<unknown>): RawBuilder<string> {
  return sql<string>`to_char(${moment} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
}

/** When a transfer `t` was recorded. */
export const recordedAtText = instantText(sql`t.recorded_at`)

/** The instant that was asked for, or now. Undefined when it lies ahead of the database's clock. */
export async function readInstant(db: Kysely<Database>, asked: string | undefined): Promise<Instant | undefined> {
  const { rows } = await sql<Instant & { readonly past: boolean }>`
    select ${instantText(sql`i.at`)} as at, i.at < i.now - instant_slack() as final, i.at <= i.now as past
    from (select coalesce(${asked ?? null}::timestamptz, n.now) as at, n.now
      from (select clock_timestamp() as now) n) i`.execute(db)
  const [row] = rows
  if (!row) throw new Error('the clock of the database answered nothing')
  return row.past ? { at: row.at, final: row.final } : undefined
}

const MILLISECONDS_END = '2026-11-24T03:40:28.000'.length

/** One microsecond earlier. */
export function justBefore(at: string): string {
  const micros = Number(at.slice(MILLISECONDS_END, -1))
  if (micros > 0) return `${at.slice(0, MILLISECONDS_END)}${String(micros - 1).padStart(3, '0')}Z`
  const ms = Date.parse(`${at.slice(0, MILLISECONDS_END)}Z`) - 1
  return `${new Date(ms).toISOString().slice(0, MILLISECONDS_END)}999Z`
}
