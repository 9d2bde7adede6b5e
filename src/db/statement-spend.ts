import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'
import type { StatementPeriod } from './statement-period.ts'
import { windowTable, type PocketWindow } from './statement-pocket.ts'

/**
 * What a pocket's attempts cost on one route in a period, in nano, as it was booked: a correction has the labels of what
 * is known by then, and changes none of those before it.
 */
export interface StatementSpend {
  readonly accountId: string
  /** The catalog model that was asked for. */
  readonly model: string
  readonly provider: string
  readonly upstreamModel: string
  readonly route: string
  /** How many attempts were charged first in this period. */
  readonly attempts: number
  readonly captured: bigint
  readonly overage: bigint
  /** Later truth minus estimate; negative when money came back. */
  readonly corrected: bigint
  /** captured + overage + corrected = useful + wasted = billed + estimated + unknown. */
  readonly charged: bigint
  readonly useful: bigint
  readonly wasted: bigint
  readonly billed: bigint
  readonly estimated: bigint
  readonly unknown: bigint
  /** What of it the pocket did not pay: it is owed, or the wallet paid, as corrections after the close once did. */
  readonly onDebt: bigint
  readonly fromWallet: bigint
}

interface Line extends Omit<StatementSpend, 'accountId' | 'model' | 'provider' | 'upstreamModel' | 'route'> {
  readonly envelopeId: string
  /** Null for movements that are no spending: they only count for how far was read. */
  readonly accountId: string | null
  readonly model: string
  readonly provider: string
  readonly upstreamModel: string
  readonly route: string
  readonly rows: bigint
  readonly lastSeq: bigint
}

/** Movements of one read, over all envelopes: some tenths of a second. */
const MOVEMENTS_PER_READ = 20_000

interface SpendRequest {
  readonly ids: readonly string[]
  readonly period: StatementPeriod
  readonly pockets: readonly PocketWindow[]
}

/** What the pockets of a few envelopes spent, in as many reads as it takes. */
export async function spendsOf(db: Kysely<Database>, request: SpendRequest): Promise<readonly StatementSpend[]> {
  const sums = new Map<string, StatementSpend>()
  let places = await startsOf(db, request)
  while (places.length > 0) {
    const limit = Math.ceil(MOVEMENTS_PER_READ / places.length)
    const lines = await readLines(db, { ...request, places, limit })
    for (const line of lines) add(sums, line)
    places = [...Map.groupBy(lines, ({ envelopeId }) => envelopeId)].flatMap(([id, own]) => {
      const isFull = own.reduce((rows, line) => rows + line.rows, 0n) === BigInt(limit)
      return isFull ? [{ id, seq: own.map((line) => line.lastSeq).reduce((a, b) => (a > b ? a : b)) }] : []
    })
  }
  return [...sums.values()].toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
}

/** Where the reading of an envelope goes on. */
interface Place {
  readonly id: string
  readonly seq: bigint
}

/** An envelope that is older than the period is not read from its beginning. */
async function startsOf(db: Kysely<Database>, { ids, period }: SpendRequest): Promise<readonly Place[]> {
  const { rows } = await sql<Place>`
    select e.id, case when e.created_at < ${period.from}::timestamptz
      then movement_bound(null, e.id, ${period.from}::timestamptz - instant_slack()) else 0 end as seq
    from envelope e where e.id = any(${ids}::uuid[])`.execute(db)
  return rows
}

async function readLines(
  db: Kysely<Database>,
  request: SpendRequest & { readonly places: readonly Place[]; readonly limit: number },
): Promise<readonly Line[]> {
  const { period, pockets, places, limit } = request
  const { rows } = await sql<Line>`
    with page as materialized (
      select e.id as envelope_id, t.seq, t.code, t.amount, t.debit_account, t.credit_account, t.call_id, t.attempt,
        t.certainty, t.use, t.recorded_at
      from unnest(${places.map(({ id }) => id)}::uuid[], ${places.map(({ seq }) => seq.toString())}::bigint[]) as e(id, seq)
      cross join lateral (
        select * from transfer t where t.envelope_id = e.id and t.seq > e.seq order by t.seq limit ${limit}
      ) t
    ), spent as (
      select p.envelope_id, p.seq, p.code, a.account_id, c.model, a.plan->>'provider' as provider,
        a.plan->>'upstreamModel' as upstream_model, a.plan->>'route' as route, p.certainty, p.use, payer.kind as payer,
        case when cost.kind = 'provider_cost' then p.amount else -p.amount end as amount
      from page p
      join attempt a on a.call_id = p.call_id and a.number = p.attempt
      left join ${windowTable(pockets)} on w.id = a.account_id and w.id in (p.debit_account, p.credit_account)
      join call c on c.id = p.call_id
      join account cost on cost.id = p.credit_account
      join account payer on payer.id = case when cost.kind = 'provider_cost' then p.debit_account else p.credit_account end
      where p.code in ('capture', 'overage', 'correction') and case
        when w.id is not null then p.seq > w.opening and p.seq <= w.closing
        else p.recorded_at >= ${period.from}::timestamptz and p.recorded_at <= ${period.closedAt}::timestamptz end
    )
    select envelope_id as "envelopeId", account_id as "accountId", model, provider, upstream_model as "upstreamModel",
      route, 0::bigint as rows, 0::bigint as "lastSeq",
      (count(*) filter (where code = 'capture'))::integer as attempts,
      ${sumWhere(sql`code = 'capture'`)} as captured, ${sumWhere(sql`code = 'overage'`)} as overage,
      ${sumWhere(sql`code = 'correction'`)} as corrected, ${sumWhere(sql`true`)} as charged,
      ${sumWhere(sql`use = 'useful'`)} as useful, ${sumWhere(sql`use = 'wasted'`)} as wasted,
      ${sumWhere(sql`certainty = 'billed'`)} as billed, ${sumWhere(sql`certainty = 'estimated'`)} as estimated,
      ${sumWhere(sql`certainty = 'unknown'`)} as unknown,
      ${sumWhere(sql`payer = 'overage'`)} as "onDebt", ${sumWhere(sql`payer = 'wallet'`)} as "fromWallet"
    from spent group by 1, 2, 3, 4, 5, 6
    union all
    select envelope_id, null, '', '', '', '', count(*), max(seq), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    from page group by 1`.execute(db)
  return rows
}

function sumWhere(condition: ReturnType<typeof sql>) {
  return sql`coalesce(sum(amount) filter (where ${condition}), 0)::bigint`
}

function keyOf(spend: StatementSpend): string {
  const { accountId, model, provider, upstreamModel, route } = spend
  return [accountId, model, provider, upstreamModel, route].join('\n')
}

function add(sums: Map<string, StatementSpend>, line: Line): void {
  const { accountId, envelopeId: _id, rows: _rows, lastSeq: _seq, ...spend } = line
  if (accountId === null) return
  const own = { accountId, ...spend }
  const key = keyOf(own)
  const known = sums.get(key)
  sums.set(key, known ? plus(known, own) : own)
}

function plus(left: StatementSpend, right: StatementSpend): StatementSpend {
  return {
    ...left,
    attempts: left.attempts + right.attempts,
    captured: left.captured + right.captured,
    overage: left.overage + right.overage,
    corrected: left.corrected + right.corrected,
    charged: left.charged + right.charged,
    useful: left.useful + right.useful,
    wasted: left.wasted + right.wasted,
    billed: left.billed + right.billed,
    estimated: left.estimated + right.estimated,
    unknown: left.unknown + right.unknown,
    onDebt: left.onDebt + right.onDebt,
    fromWallet: left.fromWallet + right.fromWallet,
  }
}
