import type { Certainty, Gate } from '#contracts/names.ts'
import { invariant } from '#domain/invariant.ts'
import type { Outcome } from '#domain/policy.ts'
import { sql, type Kysely, type RawBuilder } from 'kysely'
import { reachAfter, reachByPocket, type HopRow } from './free-money.ts'
import { json } from './json.ts'
import { callRow, type NewCall } from './opened-call.ts'
import { refusable } from './refusable.ts'
import type { Database } from './schema.ts'

/** The pocket that pays, within its tenant. */
export interface PocketKey {
  readonly projectId: string
  readonly accountId: string
}

/** Everything that is written before a request may be sent: the plan, the hold, and that it is sent. */
export interface ReserveItem {
  readonly holdId: string
  readonly callId: string
  readonly attempt: number
  /** Null for a call of a standing envelope. */
  readonly runId: string | null
  readonly envelopeId: string
  /** Worst case in nano. */
  readonly amount: bigint
  /** Worst case in tokens, input and output together. */
  readonly tokens: bigint
  /** The one executor that may send it. */
  readonly owner: string
  readonly plan: unknown
  /** Opens its call in the same commit, unless it is open already. */
  readonly opens?: NewCall | undefined
}

export type ReserveVerdict =
  | 'granted'
  | 'taken'
  | 'mismatch'
  | 'exhausted'
  | 'busy'
  | 'short'
  | 'lease_short'
  | 'behind'
  | 'answered'
  | 'owner_dead'
  | 'unknown_pocket'
  | 'unknown_call'
  /** Its call was opened with another version of the catalog. */
  | 'reopened'
  | 'invalid_amount'
  | Exclude<Gate, 'open'>

export interface ReserveAnswer {
  readonly holdId: string
  readonly verdict: ReserveVerdict
  /** True when the verdict was given before and is only repeated. */
  readonly replayed: boolean
}

/** Whether a hold was not answered for good: it fits once money or a limit's room is there, or another has gone first. */
export function hasToWait({ verdict }: ReserveAnswer): boolean {
  return verdict === 'busy' || verdict === 'behind' || verdict === 'short' || verdict === 'lease_short'
}

/** Everything that is written when an attempt is over. */
export interface SettleItem {
  readonly holdId: string
  readonly callId: string
  readonly attempt: number
  readonly resolutionId: string
  readonly overageId: string
  readonly debtId: string
  /** What it cost, in nano; null when nothing was used: the hold is voided. */
  readonly amount: bigint | null
  /** What it used of token limits; null when nobody knows: then as much as was held. */
  readonly tokens: bigint | null
  readonly certainty: Certainty | null
  readonly outcome: Outcome
  readonly detail: unknown
  readonly usage: unknown
  readonly answerId: string | null
  readonly answer: unknown
  /** What the provider bills, where that is not what is paid; left out for a void. */
  readonly margin?: Margin | undefined
  /** Its answer says what the pocket can pay then. */
  readonly tellsReach?: true | undefined
}

/** What an attempt cost the seller, and the ids of the rows that book it. */
export interface Margin {
  readonly marginId: string
  /** Of the two halves of an exchange: what is sold in the pocket's currency, and bought in the provider's. */
  readonly soldId: string
  readonly boughtId: string
  /** What the provider bills, in nano of its currency. */
  readonly cost: bigint
  readonly currency: string
  /** The same in nano of the pocket's currency. */
  readonly converted: bigint
  /** Null when both currencies are the same. */
  readonly quoteId: string | null
}

export type SettleVerdict =
  | 'settled'
  /** Settled, and its answer is not the call's: that had one already. */
  | 'settled_unused'
  | 'replayed'
  | 'already_resolved'
  | 'owner_alive'
  | 'mismatch'
  | 'unknown_hold'
  | 'invalid_amount'

export interface SettleAnswer {
  readonly holdId: string
  readonly verdict: SettleVerdict
  /** What the pocket could pay after it (`freeFor`), in nano; where it was asked for, and known without a look. */
  readonly reach?: bigint | undefined
}

/** An item with the pocket that it moves money of. */
export interface OfPocket<Item> {
  readonly pocket: PocketKey
  readonly item: Item
}

interface Posted {
  readonly settles: readonly (SettleAnswer | undefined)[]
  readonly reserves: readonly ReserveAnswer[]
}

/**
 * Settles, then holds, over many pockets in one commit and one round trip. No call may stand in it twice. A settlement
 * that is not plain (an overage, a replay) is answered `undefined` and left for `settle`.
 *
 * @throws Problem `clock_backwards`; PU002 when leases have changed meanwhile
 */
export async function post(
  db: Kysely<Database>,
  batch: {
    readonly instanceId: string
    readonly settles: readonly OfPocket<SettleItem>[]
    readonly reserves: readonly OfPocket<ReserveItem>[]
    /** After PU002: the leases of the batch are locked before they are read, so that it does not happen again. */
    readonly again?: boolean
  },
): Promise<Posted> {
  const { settles, reserves } = batch
  const accounts = accountsOf([...settles, ...reserves])
  const asking = accountsOf(settles.filter(({ item }) => item.tellsReach))
  const { rows } = await sql<PostedRow>`
    ${posted(asking)}
    from post(${batch.instanceId}, ${accounts}, ${opensOf(reserves)}::jsonb, ${listOf(settles, plainRow)}::jsonb,
      ${listOf(reserves, reserveRow)}::jsonb, ${batch.again ?? false})`.execute(db)
  const [row] = rows
  invariant(row, 'post returns a row')
  const odd = row.odd ?? []
  if (row.settled + row.granted + odd.length !== settles.length + reserves.length)
    throw new Error('the ledger answered for other items')
  const reach = reachByPocket(row.reach ?? [])
  const oddSettles = new Map<number, SettleAnswer | undefined>()
  const oddReserves = new Map<number, ReserveAnswer>()
  for (const { ord, hold_id: holdId, verdict, replayed } of odd) {
    if (verdict === 'apart') oddSettles.set(ord, undefined)
    else if (verdict === 'settled_unused') oddSettles.set(ord, { holdId, verdict })
    else oddReserves.set(ord, { holdId, verdict, replayed })
  }
  return {
    settles: settles.map(({ pocket, item: { holdId } }, ord) =>
      oddSettles.has(ord) ? oddSettles.get(ord) : { holdId, verdict: 'settled', reach: reach.get(pocket.accountId) },
    ),
    reserves: reserves.map(
      ({ item: { holdId } }, ord) => oddReserves.get(ord) ?? { holdId, verdict: 'granted', replayed: false },
    ),
  }
}

/** What is asked of `post`. Either is prepared under its own name: where nobody asks for the reach there is nothing to plan. */
function posted(asking: readonly string[]): RawBuilder<unknown> {
  if (asking.length === 0) return sql`/* prepared: post */ select settled, granted, to_json(odd) as odd, null as reach`
  const reach = reachAfter(sql.ref('settled'), asking)
  return sql`/* prepared: post_and_tell */ select settled, granted, to_json(odd) as odd, ${reach} as reach`
}

function accountsOf(entries: readonly { readonly pocket: PocketKey }[]): readonly string[] {
  return [...new Set(entries.map(({ pocket }) => pocket.accountId))]
}

interface OddVerdict {
  readonly ord: number
  readonly hold_id: string
  readonly verdict: ReserveVerdict | 'apart' | 'settled_unused'
  readonly replayed: boolean
}

interface PostedRow {
  readonly settled: number
  readonly granted: number
  /** Those that were not settled or granted, or not only now. */
  readonly odd: readonly OddVerdict[] | null
  readonly reach: readonly HopRow[] | null
}

function listOf<Item>(
  entries: readonly OfPocket<Item>[],
  rowOf: (item: Item) => Readonly<Record<string, unknown>>,
): string | null {
  if (entries.length === 0) return null
  return json(
    entries.map(({ pocket, item }, index) => ({
      ord: index,
      project_id: pocket.projectId,
      account_id: pocket.accountId,
      ...rowOf(item),
    })),
  )
}

function opensOf(reserves: readonly OfPocket<ReserveItem>[]): string | null {
  const calls = reserves.flatMap(({ pocket, item: { opens } }) => (opens ? [callRow(pocket, opens)] : []))
  return calls.length === 0 ? null : json(calls)
}

function reserveRow(item: ReserveItem) {
  return {
    hold_id: item.holdId,
    call_id: item.callId,
    attempt: item.attempt,
    run_id: item.runId,
    envelope_id: item.envelopeId,
    amount: refusable(item.amount),
    tokens: refusable(item.tokens),
    owner: item.owner,
    plan: item.plan,
  }
}

function settleRow(item: SettleItem) {
  return { ...plainRow(item), overage_id: item.overageId, debt_id: item.debtId }
}

/** A settlement without what only one that costs more than its hold needs. */
function plainRow(item: SettleItem) {
  return {
    hold_id: item.holdId,
    call_id: item.callId,
    attempt: item.attempt,
    resolution_id: item.resolutionId,
    amount: item.amount === null ? null : refusable(item.amount),
    tokens: item.tokens === null ? null : refusable(item.tokens),
    certainty: item.certainty,
    outcome: item.outcome,
    detail: item.detail,
    usage: item.usage,
    answer_id: item.answerId,
    answer: item.answer,
    ...(item.margin && { margin: marginRow(item.margin) }),
  }
}

function marginRow(margin: Margin) {
  return {
    margin_id: margin.marginId,
    sold_id: margin.soldId,
    bought_id: margin.boughtId,
    cost: refusable(margin.cost),
    currency: margin.currency,
    converted: refusable(margin.converted),
    quote_id: margin.quoteId,
  }
}

/**
 * Resolves one attempt, whatever it takes. `take_over` resolves only what a dead owner left.
 *
 * @throws Problem `clock_backwards`
 */
export async function settle(
  db: Kysely<Database>,
  pocket: PocketKey,
  request: { readonly item: SettleItem; readonly mode: 'owner' | 'take_over' },
): Promise<SettleAnswer> {
  const { item, mode } = request
  const { rows } = await sql<{ verdict: SettleVerdict }>`
    select settle(${pocket.projectId}, ${pocket.accountId}, ${json(settleRow(item))}::jsonb, ${mode === 'take_over'})
      as verdict`.execute(db)
  const [row] = rows
  invariant(row, 'settle returns a row')
  return { holdId: item.holdId, verdict: row.verdict }
}

/** What became of the search for money, or for a limit's lease, that a hold did not find in its envelope. */
export type Fetched = 'again' | 'busy' | 'exhausted' | Exclude<Gate, 'open'>

/** Looks for a hold's money above its pocket: in the parents of its envelope, or in the wallet. */
export async function findMoney(db: Kysely<Database>, pocket: PocketKey, item: ReserveItem): Promise<Fetched> {
  const { rows } = await sql<{ verdict: Fetched }>`
    select find_money(${pocket.projectId}, ${pocket.accountId}, ${json(reserveRow(item))}::jsonb) as verdict`.execute(
    db,
  )
  const [row] = rows
  invariant(row, 'find_money returns a row')
  return row.verdict
}

/** Leases more of the limits that a hold falls under. */
export async function refillLeases(db: Kysely<Database>, pocket: PocketKey, item: ReserveItem): Promise<Fetched> {
  const { rows } = await sql<{ verdict: Fetched }>`
    select refill_leases(${pocket.projectId}, ${pocket.accountId}, ${json(reserveRow(item))}::jsonb) as verdict`.execute(
    db,
  )
  const [row] = rows
  invariant(row, 'refill_leases returns a row')
  return row.verdict
}
