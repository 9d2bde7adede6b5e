import { sql, type Kysely, type RawBuilder } from 'kysely'
import type { Database } from './schema.ts'

/** A place in the order of the journal: by transaction, then by number. */
export interface Place {
  readonly xid: bigint
  readonly seq: bigint
}

/** The rows behind `after`, up to and with `upTo`. */
export interface JournalRange {
  readonly after: Place
  readonly upTo: Place
}

export const BEFORE_ALL: Place = Object.freeze({ xid: 0n, seq: 0n })
const LAST_SEQ = 2n ** 63n - 1n

/** How far the journal can be read so that nothing can appear in it any more. */
export interface Frontier {
  readonly upTo: Place
  /**
   * The journal names transactions that this cluster has not had yet: it came out of a dump. Rows that are written now
   * would come before those that stand there.
   */
  readonly isAhead: boolean
}

/** Everything below the oldest transaction that is still running anywhere in the cluster. One snapshot. */
export async function readFrontier(db: Kysely<Database>): Promise<Frontier> {
  const { rows } = await sql<{ oldest: string; next: string; newest: string | null }>`
    select pg_snapshot_xmin(s)::text as oldest, pg_snapshot_xmax(s)::text as next,
      (select t.xid::text from transfer t order by t.xid desc limit 1) as newest
    from pg_current_snapshot() s`.execute(db)
  const [row] = rows
  if (!row) throw new Error('the database has no snapshot')
  const newest = BigInt(row.newest ?? 0)
  const isAhead = newest >= BigInt(row.next)
  return { upTo: { xid: isAhead ? newest : BigInt(row.oldest) - 1n, seq: LAST_SEQ }, isAhead }
}

/** Whether a row of the journal, called `alias`, lies in the range. */
export function isWithin(range: JournalRange, alias = 't'): RawBuilder<boolean> {
  const order = sql`(${sql.ref(`${alias}.xid`)}, ${sql.ref(`${alias}.seq`)})`
  return sql<boolean>`(${order} > ${placeOf(range.after)} and ${order} <= ${placeOf(range.upTo)})`
}

/** Gives the range in pieces of at most `size` rows, one each time it is called, and then nothing. */
export function piecesOf(
  db: Kysely<Database>,
  range: JournalRange,
  size: number,
): () => Promise<JournalRange | undefined> {
  let rest: JournalRange | undefined = range
  return async () => {
    if (rest === undefined) return undefined
    const { rows } = await sql<{ xid: string; seq: bigint }>`
      select t.xid::text as xid, t.seq from transfer t where ${isWithin(rest)}
      order by t.xid, t.seq offset ${size - 1} limit 1`.execute(db)
    const [last] = rows
    if (!last) {
      const piece = rest
      rest = undefined
      return piece
    }
    const upTo = { xid: BigInt(last.xid), seq: last.seq }
    const piece = { after: rest.after, upTo }
    rest = { after: upTo, upTo: rest.upTo }
    return piece
  }
}

export function isLater(left: Place, right: Place): boolean {
  return left.xid > right.xid || (left.xid === right.xid && left.seq > right.seq)
}

function placeOf(place: Place): RawBuilder<unknown> {
  return sql`(${place.xid.toString()}::text::xid8, ${place.seq.toString()}::bigint)`
}
