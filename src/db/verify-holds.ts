import { sql, type Kysely, type RawBuilder } from 'kysely'
import { isWithin, type JournalRange } from './journal-range.ts'
import type { Finding } from './verify-check.ts'
import { firstWrongAtOnce, firstWrongIn } from './verify-first.ts'
import { holdHash, JournalFold, readGroups } from './verify-fold.ts'
import { byKey, bySet, withWholeTables, type Lookup } from './verify-lookup.ts'
import type { Reach } from './verify-table.ts'
import type { Database } from './schema.ts'

/** Rows of one exact statement: each of them is looked up in an index. */
const PIECE_ROWS = 20_000

/**
 * Holds less resolutions are the open attempts, as sums of hashes over everything that both sides name. The rest of the
 * journal and the attempts are read in one snapshot.
 */
export async function compareHolds(
  db: Kysely<Database>,
  journal: { readonly fold: JournalFold; readonly range: JournalRange },
): Promise<Finding> {
  const { fold, range } = journal
  const open = await readOpen(db, journal)
  const rows = Number(fold.rows)
  if (!fold.isHoldBroken && open.fromJournal === open.fromAttempts) return { rows, firstWrong: null }
  const first =
    (await firstWrongIn(db, { range, pieceRows: PIECE_ROWS, rows: wrongHolds })) ?? (await firstWrongOpen(db))
  return { rows, firstWrong: first ?? `the open holds of the journal are not those of the open attempts` }
}

async function readOpen(
  db: Kysely<Database>,
  { fold, range }: { readonly fold: JournalFold; readonly range: JournalRange },
): Promise<{ readonly fromJournal: bigint; readonly fromAttempts: bigint }> {
  return db
    .transaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute(async (trx) => {
      const rest = new JournalFold({ holds: fold.holds })
      rest.add(await readGroups(trx, sql<boolean>`t.xid > ${range.upTo.xid.toString()}::text::xid8`))
      const hash = holdHash({
        id: sql`a.hold_id`,
        account: sql`a.account_id`,
        amount: sql`a.held`,
        alias: 'a',
        attempt: 'number',
      })
      const { rows } = await sql<{ sum: string | null }>`
        select sum(${hash})::text as sum from attempt a where a.state = 'sent'`.execute(trx)
      return { fromJournal: rest.holds, fromAttempts: BigInt(rows[0]?.sum ?? 0) }
    })
}

function wrongHolds(piece: RawBuilder<boolean>): RawBuilder<unknown> {
  return sql`
    select 'transfer ' || t.id as name, t.xid, t.seq,
      case
        when t.code = 'hold' then 'is open, and no open attempt has it'
        when h.id is null or h.code <> 'hold' then 'resolves no hold'
        when h.debit_account <> t.debit_account or h.credit_account <> t.credit_account then
          'resolves over other accounts'
        when t.released <> h.amount then 'releases ' || t.released || ' of a hold of ' || h.amount
        when (t.run_id, t.call_id, t.attempt, t.envelope_id) is distinct from
          (h.run_id, h.call_id, h.attempt, h.envelope_id) then 'names another attempt than its hold'
        when t.certainty = 'unknown' and t.amount <> h.amount then 'is unknown and not its whole hold'
        when t.amount > h.amount then 'captures ' || t.amount || ' from a hold of ' || h.amount
      end as wrong
    from transfer t left join transfer h on h.id = t.pending_id
    where ${piece} and (t.pending_id is not null or t.code = 'hold' and not exists (
      select from attempt a where a.call_id = t.call_id and a.number = t.attempt and a.hold_id = t.id
        and a.state = 'sent' and a.held = t.amount and a.account_id = t.debit_account
    ) and not exists (select from transfer r where r.pending_id = t.id))`
}

async function firstWrongOpen(db: Kysely<Database>): Promise<string | null> {
  const { rows } = await sql<{ id: string; number: number }>`
    select a.call_id as id, a.number from attempt a
    where a.state = 'sent' and not exists (
      select from transfer h where h.id = a.hold_id and h.code = 'hold' and h.amount = a.held
        and h.debit_account = a.account_id and not exists (select from transfer r where r.pending_id = h.id)
    ) order by a.sent_at limit 1`.execute(db)
  const [first] = rows
  return first ? `attempt ${first.id}:${first.number}: is open and its hold is not` : null
}

/** The first hold, or part of a margin, that no attempt has. */
export async function firstOrphanHold(
  db: Kysely<Database>,
  { range, reach }: { readonly range: JournalRange; readonly reach: Reach },
): Promise<string | null> {
  if (reach.kind === 'whole') {
    return withWholeTables(db, (trx) => firstWrongAtOnce(trx, orphans(isWithin(range), bySet)))
  }
  return firstWrongIn(db, { range, pieceRows: PIECE_ROWS, rows: (piece) => orphans(piece, byKey) })
}

function orphans(piece: RawBuilder<boolean>, join: Lookup): RawBuilder<unknown> {
  const isOf = sql`a.call_id = t.call_id and a.number = t.attempt and (t.code <> 'hold' or a.hold_id = t.id)`
  return sql`
    select 'transfer ' || t.id as name, t.xid, t.seq,
      case t.code when 'hold' then 'a hold' else 'a margin' end || ' without an attempt' as wrong
    from transfer t ${join('attempt', 'a', isOf)}
    where ${piece} and t.code in ('hold', 'margin', 'cost_exchange') and a.hold_id is null`
}
