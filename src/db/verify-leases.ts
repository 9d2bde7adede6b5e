import { sql, type Kysely, type RawBuilder } from 'kysely'
import { everyLease } from './limit-usage.ts'
import { inLanes, type Finding } from './verify-check.ts'
import { keyPieces } from './verify-table.ts'
import type { Database } from './schema.ts'

/** Calls whose attempts one statement adds up, and leases that are read at once. */
const PIECE_CALLS = 10_000
const PAGE = 10_000
/** Leases that did not agree are looked at again with all attempts of their envelopes, this many in one snapshot. */
const AGAIN_PAGE = 20
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
 * Compares every lease with what its attempts have used and hold. Attempts and leases are read piece by piece while both
 * move on, so a difference is only a suspicion: what differs is read again, all of it in one snapshot.
 */
export async function compareLeases(db: Kysely<Database>): Promise<Finding> {
  const used = await readUsage(db)
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
    const firstWrong = await lookAgain(db, suspects.slice(at, at + AGAIN_PAGE))
    if (firstWrong !== null) return { rows, firstWrong }
  }
  return { rows, firstWrong: null }
}

async function readUsage(db: Kysely<Database>): Promise<ReadonlyMap<string, Usage>> {
  const sums = new Map<string, Usage>()
  await inLanes(
    keyPieces(db, { table: 'attempt', key: 'call_id', alias: 'a', pieceRows: PIECE_CALLS }),
    async (piece) => {
      const { rows } =
        await sql<Usage>`${usageOf(sql`select a.* from attempt a where ${piece} and a.leases <> '{}'`)}`.execute(db)
      for (const { id, used, held } of rows) {
        const known = sums.get(id)
        sums.set(id, { id, used: (known?.used ?? 0n) + used, held: (known?.held ?? 0n) + held })
      }
    },
  )
  return sums
}

/**
 * What attempts hold and have used of each lease they name, by the journal: money from the movements, tokens from what was
 * settled, a call for every attempt that was not voided, or that was corrected to more than nothing.
 */
function usageOf(attempts: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`
    with a as materialized (${attempts}),
    extra as materialized (
      select t.call_id, t.attempt, t.envelope_id,
        sum(case when c.kind = 'provider_cost' then t.amount else -t.amount end) as amount,
        bool_or(t.code = 'correction') as corrected
      from transfer t join account c on c.id = t.credit_account
      where t.code in ('overage', 'debt_payment', 'correction') and t.code <> 'debt_payment' and t.call_id is not null
      group by t.call_id, t.attempt, t.envelope_id
    )
    select x.id,
      coalesce(sum(case when a.state <> 'sent' then 0 when u.measure = 'money' then h.amount
        when u.measure = 'tokens' then a.tokens else 1 end), 0)::bigint as held,
      coalesce(sum(case when a.state = 'sent' then 0
        when u.measure = 'money' then case when r.code = 'capture' then r.amount else 0 end + coalesce(e.amount, 0)
        when u.measure = 'tokens' then coalesce(a.tokens_used, 0)
        when e.corrected then (r.amount + e.amount > 0)::integer when r.code = 'capture' then 1 else 0 end), 0)::bigint
        as used
    from a
    cross join lateral unnest(a.leases) as x(id)
    join (${everyLease}) l on l.id = x.id
    join usage_limit u on u.id = l.limit_id
    join transfer h on h.id = a.hold_id
    left join transfer r on r.pending_id = a.hold_id
    left join extra e on e.call_id = a.call_id and e.attempt = a.number and e.envelope_id = a.envelope_id
    group by x.id`
}

async function readLeases(db: Kysely<Database>, which: RawBuilder<unknown>): Promise<readonly Lease[]> {
  const { rows } = await sql<Lease>`
    select l.id, l.used, l.held, l.leased from (${everyLease}) l where ${which}`.execute(db)
  return rows
}

async function lookAgain(db: Kysely<Database>, ids: readonly string[]): Promise<string | null> {
  return db
    .transaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute(async (trx) => {
      const leases = await readLeases(trx, sql`l.id = any(${ids}::uuid[]) order by l.id`)
      const { rows } = await sql<Usage>`${usageOf(sql`
        select a.* from transfer t join attempt a on a.call_id = t.call_id and a.number = t.attempt
        where t.code = 'hold' and t.envelope_id in (
          select l.envelope_id from (${everyLease}) l where l.id = any(${ids}::uuid[])
        ) and a.leases && ${ids}::uuid[]`)}`.execute(trx)
      const used = new Map(rows.map((row) => [row.id, row]))
      for (const lease of leases) {
        const wrong = wrongOf(lease, used.get(lease.id))
        if (wrong !== null) return `lease ${lease.id}: ${wrong}`
      }
      return null
    })
}

function wrongOf(lease: Lease, own: Usage | undefined): string | null {
  const { used, held } = own ?? { used: 0n, held: 0n }
  if (lease.used !== used) return `has used ${lease.used}, its attempts have used ${used}`
  if (lease.held !== held) return `holds ${lease.held}, its attempts hold ${held}`
  return lease.used + lease.held > lease.leased ? 'lends less than was used and is held of it' : null
}
