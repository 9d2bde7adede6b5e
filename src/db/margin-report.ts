import { groupMargins, type MarginGroup, type MarginSums } from '#domain/margin-sums.ts'
import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

export interface MarginRequest {
  readonly organisationId: string
  /** Undefined: all of the organisation's. */
  readonly projectId: string | undefined
  readonly from: Date
  /** Up to, and without. */
  readonly to: Date
  readonly by: ReadonlySet<MarginGroup>
}

/** Movements of one read: some tenths of a second, so that no snapshot is held for long. */
const MOVEMENTS_PER_READ = 20_000
/** Envelopes of one read. */
const ENVELOPES_PER_READ = 1_000
const FIRST_ID = '00000000-0000-0000-0000-000000000000'

/** What an organisation sold in a period, what of it providers bill, and what is left: by the journal alone. */
export async function readMargins(db: Kysely<Database>, request: MarginRequest): Promise<readonly MarginSums[]> {
  const projects = await projectsOf(db, request)
  const lines: MarginSums[] = []
  const add = (found: readonly Line[]) => {
    // Added up page by page, so that a long journal takes no more memory than a short one.
    const told = found.filter(({ route }) => route !== null)
    lines.splice(0, lines.length, ...groupMargins([...lines, ...told.map(sumsOf)], request.by))
  }
  const envelopes = await envelopesOf(db, request, projects)
  for (let start = 0; start < envelopes.length; start += ENVELOPES_PER_READ) {
    const ids = envelopes.slice(start, start + ENVELOPES_PER_READ)
    await readPages((after) => readSold(db, request, { ids, after }), add)
  }
  await readPages((after) => readMarginRows(db, request, { projects, after }), add)
  return lines
}

interface Line extends Omit<MarginSums, 'billed'> {
  readonly billedCurrency: string | null
  readonly billedAmount: bigint
  /** Of the line that tells how far was read: what comes behind it is on the next page. */
  readonly rows: bigint | null
  readonly lastId: string | null
  readonly lastSeq: bigint | null
}

interface Place {
  readonly id: string
  readonly seq: bigint
}

async function readPages(
  read: (after: Place) => Promise<readonly Line[]>,
  add: (lines: readonly Line[]) => void,
): Promise<void> {
  let after: Place | undefined = { id: FIRST_ID, seq: 0n }
  while (after) {
    const lines = await read(after)
    add(lines)
    const end = lines.find(({ rows }) => rows === BigInt(MOVEMENTS_PER_READ))
    after = end && end.lastId !== null && end.lastSeq !== null ? { id: end.lastId, seq: end.lastSeq } : undefined
  }
}

function sumsOf(line: Line): MarginSums {
  const { billedCurrency, billedAmount, rows: _rows, lastId: _id, lastSeq: _seq, ...sums } = line
  return { ...sums, billed: billedCurrency === null ? {} : { [billedCurrency]: billedAmount } }
}

async function projectsOf(db: Kysely<Database>, request: MarginRequest): Promise<readonly string[]> {
  let query = db.selectFrom('project').select('id').where('organisation_id', '=', request.organisationId)
  if (request.projectId !== undefined) query = query.where('id', '=', request.projectId)
  return (await query.execute()).map(({ id }) => id)
}

/** Those that were open in the period, and those that a correction reached in it. */
async function envelopesOf(
  db: Kysely<Database>,
  { from, to }: MarginRequest,
  projects: readonly string[],
): Promise<readonly string[]> {
  const { rows } = await sql<{ readonly id: string }>`
    select e.id from envelope e
    where e.project_id = any(${projects}::uuid[]) and e.created_at < ${to} and (
      e.closed_at is null or e.closed_at >= ${from} or e.id in (
        select t.envelope_id from transfer t
        where t.project_id = any(${projects}::uuid[]) and t.code = 'correction'
          and t.code in ('overage', 'debt_payment', 'correction', 'reversal')
          and t.recorded_at >= ${from} and t.recorded_at < ${to}))
    order by e.id`.execute(db)
  return rows.map(({ id }) => id)
}

const attemptNames = sql`c.model, a.plan->>'route' as route, a.plan->>'provider' as provider,
  a.plan->>'upstreamModel' as "upstreamModel", to_char(p.recorded_at at time zone 'UTC', 'YYYY-MM') as month`

/** What was paid: captures, overages and corrections. */
async function readSold(
  db: Kysely<Database>,
  { from, to }: MarginRequest,
  { ids, after }: { readonly ids: readonly string[]; readonly after: Place },
): Promise<readonly Line[]> {
  const { rows } = await sql<Line>`
    with page as materialized (
      select t.envelope_id, t.seq, t.code, t.amount, t.currency, t.project_id, t.credit_account, t.call_id, t.attempt,
        t.recorded_at
      from transfer t
      where t.envelope_id = any(${ids}::uuid[]) and (t.envelope_id, t.seq) > (${after.id}::uuid, ${after.seq})
      order by t.envelope_id, t.seq limit ${MOVEMENTS_PER_READ}
    )
    select p.project_id as "projectId", ${attemptNames}, p.currency,
      (count(*) filter (where p.code = 'capture'))::integer as attempts,
      sum(case when k.kind = 'provider_cost' then p.amount else -p.amount end)::bigint as sell, 0::bigint as margin,
      null as "billedCurrency", 0::bigint as "billedAmount", null::bigint as rows, null::uuid as "lastId",
      null::bigint as "lastSeq"
    from page p
    join attempt a on a.call_id = p.call_id and a.number = p.attempt
    join call c on c.id = p.call_id
    join account k on k.id = p.credit_account
    where p.code in ('capture', 'overage', 'correction') and p.recorded_at >= ${from} and p.recorded_at < ${to}
    group by 1, 2, 3, 4, 5, 6, 7
    union all
    select null, null, null, null, null, null, '', 0, 0, 0, null, 0, count(*),
      (array_agg(envelope_id order by envelope_id desc))[1], (array_agg(seq order by envelope_id desc, seq desc))[1]
    from page`.execute(db)
  return rows
}

/** What of it is above the cost, and what providers bill in other currencies. */
async function readMarginRows(
  db: Kysely<Database>,
  { from, to }: MarginRequest,
  { projects, after }: { readonly projects: readonly string[]; readonly after: Place },
): Promise<readonly Line[]> {
  const { rows } = await sql<Line>`
    with page as materialized (
      select t.call_id, t.seq, t.code, t.amount, t.currency, t.project_id, t.credit_account, t.attempt, t.recorded_at
      from transfer t
      where t.code in ('margin', 'cost_exchange') and t.call_id >= ${after.id}::uuid
        and (t.call_id, t.seq) > (${after.id}::uuid, ${after.seq}) and t.project_id = any(${projects}::uuid[])
      order by t.call_id, t.seq limit ${MOVEMENTS_PER_READ}
    )
    select p.project_id as "projectId", ${attemptNames}, a.plan->>'currency' as currency, 0 as attempts, 0::bigint as sell,
      sum(case when p.code <> 'margin' then 0 when k.kind = 'revenue' then p.amount else -p.amount end)::bigint as margin,
      case when p.currency <> a.plan->>'currency' then p.currency end as "billedCurrency",
      sum(case when p.currency = a.plan->>'currency' then 0 when k.kind = 'provider_cost' then p.amount
        else -p.amount end)::bigint as "billedAmount", null::bigint as rows, null::uuid as "lastId", null::bigint as "lastSeq"
    from page p
    join attempt a on a.call_id = p.call_id and a.number = p.attempt
    join call c on c.id = p.call_id
    join account k on k.id = p.credit_account
    where p.recorded_at >= ${from} and p.recorded_at < ${to}
    group by 1, 2, 3, 4, 5, 6, 7, "billedCurrency"
    union all
    select null, null, null, null, null, null, '', 0, 0, 0, null, 0, count(*),
      (array_agg(call_id order by call_id desc))[1], (array_agg(seq order by call_id desc, seq desc))[1]
    from page`.execute(db)
  return rows
}
