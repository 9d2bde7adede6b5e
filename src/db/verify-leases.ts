import { sql, type Kysely, type RawBuilder } from 'kysely'
import type { Place } from './journal-range.ts'
import { everyLease } from './limit-usage.ts'
import { inLanes, type Finding } from './verify-check.ts'
import { byKey, bySet, withWholeTables, type Lookup } from './verify-lookup.ts'
import { keyPieces, type Reach } from './verify-table.ts'
import type { Database } from './schema.ts'

/** Calls whose attempts one statement adds up, and leases that are read at once. */
const PIECE_CALLS = 10_000
const PAGE = 10_000
/** Leases that did not agree are looked at again, this many in one snapshot. */
const AGAIN_PAGE = 1_000
const FIRST_ID = '00000000-0000-0000-0000-000000000000'

interface Usage {
  readonly id: string
  readonly used: bigint
  readonly held: bigint
}

interface Lease extends Usage {
  readonly leased: bigint
}

/**
 * Compares every lease with what its attempts have used and hold. Attempts are added up piece by piece as of the journal's
 * frontier, so what differs is only a suspicion: it is read again in one short snapshot, with what came since.
 */
export async function compareLeases(
  db: Kysely<Database>,
  { upTo, reach }: { readonly upTo: Place; readonly reach: Reach },
): Promise<Finding> {
  const used = await readUsage(db, { upTo, reach })
  const suspects: string[] = []
  let rows = 0
  let after = FIRST_ID
  for (;;) {
    const page = await readLeases(db, sql`l.id > ${after} order by l.id limit ${PAGE}`)
    const last = page.at(-1)
    if (!last) break
    after = last.id
    rows += page.length
    for (const lease of page) if (wrongOf(lease, used.get(lease.id)) !== null) suspects.push(lease.id)
  }
  for (let at = 0; at < suspects.length; at += AGAIN_PAGE) {
    const firstWrong = await lookAgain(db, suspects.slice(at, at + AGAIN_PAGE), { used, upTo })
    if (firstWrong !== null) return { rows, firstWrong }
  }
  return { rows, firstWrong: null }
}

async function readUsage(
  db: Kysely<Database>,
  { upTo, reach }: { readonly upTo: Place; readonly reach: Reach },
): Promise<ReadonlyMap<string, Usage>> {
  const until = xidOf(upTo)
  const attempts = (piece: RawBuilder<boolean>) => sql`select a.* from attempt a where ${piece} and a.leases <> '{}'`
  if (reach.kind === 'whole') {
    const usage = usageOf(attempts(sql`true`), { until, join: bySet })
    const { rows } = await withWholeTables(db, (trx) => sql<Usage>`${usage}`.execute(trx))
    return new Map(rows.map((row) => [row.id, row]))
  }
  const sums = new Map<string, Usage>()
  await inLanes(
    keyPieces(db, { table: 'attempt', key: 'call_id', alias: 'a', pieceRows: PIECE_CALLS }),
    async (piece) => {
      const { rows } = await sql<Usage>`${usageOf(attempts(piece), { until, join: byKey })}`.execute(db)
      for (const row of rows) sums.set(row.id, plus(row, sums.get(row.id)))
    },
  )
  return sums
}

function xidOf({ xid }: Place): RawBuilder<unknown> {
  return sql`${xid.toString()}::text::xid8`
}

function plus(left: Usage, right: Usage | undefined): Usage {
  return { id: left.id, used: left.used + (right?.used ?? 0n), held: left.held + (right?.held ?? 0n) }
}

/**
 * What attempts hold and have used of each lease they name, by the journal up to a transaction: money from the movements,
 * tokens from what was settled, a call for every attempt that was not voided, or that was corrected to more than nothing.
 * Attempts of the same leases are added up before anybody asks what the leases measure.
 */
function usageOf(
  attempts: RawBuilder<unknown>,
  { until, join }: { readonly until: RawBuilder<unknown>; readonly join: Lookup },
): RawBuilder<unknown> {
  return sql`
    with extra as materialized (
      select t.call_id, t.attempt, t.envelope_id,
        sum(case when c.kind = 'provider_cost' then t.amount else -t.amount end) as amount,
        bool_or(t.code = 'correction') as corrected
      from transfer t join account c on c.id = t.credit_account
      where t.code in ('overage', 'debt_payment', 'correction') and t.code <> 'debt_payment' and t.call_id is not null
        and t.xid <= ${until}
      group by t.call_id, t.attempt, t.envelope_id
    ), used as materialized (
      select a.leases,
        sum(h.amount) filter (where r.id is null) as held_money,
        sum(a.tokens) filter (where r.id is null) as held_tokens,
        count(*) filter (where r.id is null) as held_calls,
        sum(case when r.code = 'capture' then r.amount else 0 end + coalesce(e.amount, 0)) filter (where r.id is not null)
          as money,
        sum(a.tokens_used) filter (where r.id is not null) as tokens,
        count(*) filter (where case when e.corrected then r.amount + e.amount > 0 else r.code = 'capture' end) as calls
      from (${attempts} offset 0) a
      ${join('transfer', 'h', sql`h.id = a.hold_id and h.xid <= ${until}`)}
      ${join('transfer', 'r', sql`r.pending_id = a.hold_id and r.xid <= ${until}`)}
      left join extra e on e.call_id = a.call_id and e.attempt = a.number and e.envelope_id = a.envelope_id
      where h.id is not null
      group by a.leases
    )
    select x.id,
      coalesce(sum(case u.measure when 'money' then s.held_money when 'tokens' then s.held_tokens else s.held_calls end),
        0)::bigint as held,
      coalesce(sum(case u.measure when 'money' then s.money when 'tokens' then s.tokens else s.calls end), 0)::bigint
        as used
    from used s
    cross join lateral unnest(s.leases) as x(id)
    cross join lateral (select l.limit_id from (${everyLease}) l where l.id = x.id limit 1) l
    join usage_limit u on u.id = l.limit_id
    group by x.id`
}

async function readLeases(db: Kysely<Database>, which: RawBuilder<unknown>): Promise<readonly Lease[]> {
  const { rows } = await sql<Lease>`
    select l.id, l.used, l.held, l.leased from (${everyLease}) l where ${which}`.execute(db)
  return rows
}

/** How much the movements behind the frontier have changed leases, and whether it is more than they say. */
interface Change extends Usage {
  /** A correction changes the tokens of an attempt in its row, so what was counted of it before is not known. */
  readonly isCorrected: boolean
}

async function lookAgain(
  db: Kysely<Database>,
  ids: readonly string[],
  { used, upTo }: { readonly used: ReadonlyMap<string, Usage>; readonly upTo: Place },
): Promise<string | null> {
  return db
    .transaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute(async (trx) => {
      const leases = await readLeases(trx, sql`l.id = any(${ids}::uuid[]) order by l.id`)
      const { rows } = await changesOf(trx, ids, upTo)
      const changes = new Map(rows.map((row) => [row.id, row]))
      for (const lease of leases) {
        const change = changes.get(lease.id)
        const own = used.get(lease.id)
        const seen = wrongOf(lease, change ? plus(change, own) : own)
        const wrong = seen !== null && change?.isCorrected === true ? await wrongInAll(trx, lease) : seen
        if (wrong !== null) return `lease ${lease.id}: ${wrong}`
      }
      return null
    })
}

function changesOf(trx: Kysely<Database>, ids: readonly string[], upTo: Place) {
  return sql<Change>`
    select x.id, bool_or(t.code = 'correction' and u.measure = 'tokens') as "isCorrected",
      sum(case when t.code = 'hold' then 1 when t.pending_id is not null then -1 else 0 end
        * case u.measure when 'money' then a.held when 'tokens' then a.tokens else 1 end)::bigint as held,
      sum(case
        when t.code in ('hold', 'void') then 0
        when u.measure = 'money' then case when c.kind = 'provider_cost' then t.amount else -t.amount end
        when t.code <> 'capture' then 0
        when u.measure = 'tokens' then coalesce(a.tokens_used, 0)
        else 1 end)::bigint as used
    from transfer t
    join account c on c.id = t.credit_account
    join attempt a on a.call_id = t.call_id and a.number = t.attempt
    cross join lateral unnest(a.leases) as x(id)
    cross join lateral (select l.limit_id from (${everyLease}) l where l.id = x.id limit 1) l
    join usage_limit u on u.id = l.limit_id
    where t.xid > ${xidOf(upTo)} and t.code in ('hold', 'capture', 'void', 'overage', 'correction')
      and x.id = any(${ids}::uuid[])
    group by x.id`.execute(trx)
}

/** All attempts of the envelope of one lease: rare, for it takes as long as the envelope has attempts. */
async function wrongInAll(trx: Kysely<Database>, lease: Lease): Promise<string | null> {
  const attempts = sql`
    select a.* from transfer t join attempt a on a.call_id = t.call_id and a.number = t.attempt
    where t.code = 'hold' and a.leases && ${[lease.id]}::uuid[] and t.envelope_id in (
      select l.envelope_id from (${everyLease}) l where l.id = ${lease.id}
    )`
  const { rows } =
    await sql<Usage>`${usageOf(attempts, { until: sql`'9223372036854775807'::xid8`, join: byKey })}`.execute(trx)
  return wrongOf(
    lease,
    rows.find(({ id }) => id === lease.id),
  )
}

function wrongOf(lease: Lease, own: Usage | undefined): string | null {
  const { used, held } = own ?? { used: 0n, held: 0n }
  if (lease.used !== used) return `has used ${lease.used}, its attempts have used ${used}`
  if (lease.held !== held) return `holds ${lease.held}, its attempts hold ${held}`
  return lease.used + lease.held > lease.leased ? 'lends less than was used and is held of it' : null
}
