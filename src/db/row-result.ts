import { answerSchema } from '#contracts/stored.ts'
import { inOrder, type DatasetRow } from '#domain/row-template.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { RowMap } from './row-map.ts'
import type { Database } from './schema.ts'

/** Rows of one read: some tenths of a second, also when each is large. */
const PAGE = 500

/** A row with what became of it. */
export interface RowResult {
  readonly number: number
  readonly input: DatasetRow
  readonly state: 'answered' | 'failed' | 'open'
  /** Of its last call, also when it is no object of the schema; null when there is none. */
  readonly text: string | null
  /** It had an answer, which is not stored any more. */
  readonly isErased: boolean
  readonly reason: string | null
  readonly detail: string | null
  /** In nano, by currency. */
  readonly cost: readonly { readonly currency: string; readonly amount: bigint }[]
}

/** All rows of a map in order, some at a time, each as it stands when it is read. */
export async function* readRowResults(
  db: Kysely<Database>,
  scope: Scope,
  map: RowMap,
): AsyncGenerator<readonly RowResult[]> {
  for (let after = 0; ; after += PAGE) {
    const page = await readPage(db, scope, { map, after })
    if (page.length > 0) yield page
    if (page.length < PAGE) return
  }
}

interface PageRow {
  readonly number: number
  readonly body: DatasetRow
  readonly outcome: 'answered' | 'failed' | 'open' | null
  readonly reason: string | null
  readonly detail: string | null
  readonly callIds: readonly string[] | null
  readonly answer: unknown
  readonly isErased: boolean
}

async function readPage(
  db: Kysely<Database>,
  scope: Scope,
  { map, after }: { readonly map: RowMap; readonly after: number },
): Promise<readonly RowResult[]> {
  const { rows } = await sql<PageRow>`
    select r.number, r.body, m.outcome, m.reason, m.detail, m.call_ids as "callIds", p.body as answer,
      p.erased_at is not null as "isErased"
    from dataset_row r
    left join run_map_row m on m.run_id = ${map.runId} and m.path = ${map.path} and m.number = r.number
    left join call c on c.id = m.call_ids[cardinality(m.call_ids)]
    left join payload p on p.id = c.answer_id
    where r.project_id = ${scope.projectId} and r.dataset_id = ${map.datasetId}
      and r.number > ${after} and r.number <= ${after + PAGE}
    order by r.number`.execute(db)
  const costs = await costsOf(
    db,
    scope,
    rows.flatMap(({ callIds }) => callIds ?? []),
  )
  return rows.map(({ number, body, outcome, reason, detail, callIds, answer, isErased }) => ({
    number,
    input: inOrder(body, map.columns),
    state: outcome ?? 'open',
    text: answer === null ? null : answerSchema.parse(answer).text,
    isErased,
    reason,
    detail,
    cost: sumCosts((callIds ?? []).flatMap((id) => costs.get(id) ?? [])),
  }))
}

interface Cost {
  readonly callId: string
  readonly currency: string
  readonly amount: bigint
}

/** What the journal says that calls were charged: captures, and what was booked beyond or corrected. */
async function costsOf(
  db: Kysely<Database>,
  scope: Scope,
  callIds: readonly string[],
): Promise<ReadonlyMap<string, readonly Cost[]>> {
  const { rows } = await sql<Cost>`
    with asked as materialized (select unnest(${[...callIds]}::uuid[]) as id)
    select a.call_id as "callId", t.currency, t.amount
    from asked join attempt a on a.call_id = asked.id
    join transfer t on t.pending_id = a.hold_id and t.code = 'capture'
    where a.project_id = ${scope.projectId}
    union all
    select t.call_id, t.currency, case when credit.kind = 'provider_cost' then t.amount else -t.amount end
    from asked join transfer t on t.call_id = asked.id and t.code in ('overage', 'correction')
    join account credit on credit.id = t.credit_account
    where t.project_id = ${scope.projectId}`.execute(db)
  return Map.groupBy(rows, ({ callId }) => callId)
}

function sumCosts(costs: readonly Cost[]): RowResult['cost'] {
  const sums = new Map<string, bigint>()
  for (const { currency, amount } of costs) sums.set(currency, (sums.get(currency) ?? 0n) + amount)
  return [...sums].map(([currency, amount]) => ({ currency, amount }))
}
