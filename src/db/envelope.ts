import { Problem } from '#contracts/codes.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import { isStoreUnavailable, type Scope } from './database.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** Standing money that did not move for so long goes home: a key that pauses longer pays one more fill. */
const IDLE_INTERVAL = '5 minutes'
/** Most pockets or envelopes of one turn: their wallets are locked meanwhile, and the next turn goes on. */
const TURN_LIMIT = 100

/** One pocket of a child. `id` is the transfer's, unless nothing is carved. */
export interface Carving {
  readonly id: string
  readonly balanceClass: BalanceClass
  readonly currency: string
  /** What it is given now; zero for a child that asks when it needs money. */
  readonly amount: bigint
  /** The most it may ever be given; null: as much as the parent has. */
  readonly cap: bigint | null
}

/**
 * Why a child was not opened. `unknown_run`: it belongs to another project. `unknown_pocket`: the parent has none of this
 * class and currency.
 */
export interface ChildRefusal {
  readonly reason:
    | 'unknown_envelope'
    | 'unknown_run'
    | 'envelope_closed'
    | 'envelope_exists'
    | 'too_deep'
    | 'invalid_amount'
    | 'unknown_pocket'
    | 'parent_short'
  readonly balanceClass: BalanceClass | null
  readonly currency: string | null
  readonly asked: bigint | null
  readonly free: bigint | null
}

export interface NewChild {
  readonly parentId: string
  readonly envelopeId: string
  /** Null for a child of the parent's own run. */
  readonly runId: string | null
  /** `wrap_up`: a reserve that is kept for delivering when the parent is stopped. */
  readonly kind: 'child' | 'wrap_up'
  readonly carvings: readonly Carving[]
}

/**
 * Opens a child envelope and carves its money from the parent's remainder: all of it or nothing. Asked again for the same
 * child it changes nothing.
 */
export async function openChild(
  db: Kysely<Database>,
  scope: Scope,
  child: NewChild,
): Promise<ChildRefusal | undefined> {
  const items = child.carvings.map((carving) => ({
    id: carving.id,
    balance_class: carving.balanceClass,
    currency: carving.currency,
    amount: carving.amount,
    cap: carving.cap,
  }))
  const { rows } = await sql<ChildRefusal>`
    select reason, balance_class as "balanceClass", currency, asked, free
    from open_child(${scope.projectId}, ${child.parentId}, ${child.envelopeId}, ${child.runId}, ${child.kind},
      ${json(items)}::jsonb)`.execute(db)
  return rows[0]
}

/** Holds an envelope, all that is open below it and their pockets: nothing of it moves before the caller's commit. */
export async function lockEnvelopes(trx: Transaction<Database>, scope: Scope, envelopeId: string): Promise<void> {
  await sql`select lock_envelopes(${scope.projectId}, ${envelopeId})`.execute(trx)
}

/** Closes an envelope and all below it, the lowest first, unless a hold is open. */
export async function closeTree(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly envelopeId: string; readonly reason: string },
): Promise<'closed' | 'open_holds' | 'unknown'> {
  const { rows } = await sql<{ verdict: 'closed' | 'open_holds' | 'unknown' }>`
    select close_tree(${scope.projectId}, ${request.envelopeId}, ${request.reason}) as verdict`.execute(db)
  return single(rows).verdict
}

export type StandingRefusal = 'unknown_key' | 'revoked_key' | 'no_wallet'

export type StandingPocket =
  | { readonly ok: true; readonly envelopeId: string; readonly accountId: string }
  | { readonly ok: false; readonly reason: StandingRefusal | 'wrong_currency' }

/** The pocket that pays a key's calls that belong to no run. Made empty when it is first asked for. */
export async function standingPocket(
  db: Kysely<Database>,
  scope: Scope,
  key: { readonly keyId: string; readonly balanceClass: BalanceClass; readonly currency: string },
): Promise<StandingPocket> {
  const { rows } = await sql<{
    refusal: StandingRefusal | 'wrong_currency' | null
    envelopeId: string
    accountId: string
  }>`
    select refusal, envelope_id as "envelopeId", account_id as "accountId"
    from standing_pocket(${scope.projectId}, ${key.keyId}, ${key.balanceClass}, ${key.currency})`.execute(db)
  const { refusal, envelopeId, accountId } = single(rows)
  return refusal === null ? { ok: true, envelopeId, accountId } : { ok: false, reason: refusal }
}

/** The standing envelope of a key, or why it has none. Made when it is first asked for. */
export async function standingEnvelope(
  db: Kysely<Database>,
  scope: Scope,
  keyId: string,
): Promise<
  { readonly ok: true; readonly envelopeId: string } | { readonly ok: false; readonly reason: StandingRefusal }
> {
  const { rows } = await sql<{ refusal: StandingRefusal | null; envelopeId: string }>`
    select refusal, envelope_id as "envelopeId" from standing_envelope(${scope.projectId}, ${keyId})`.execute(db)
  const { refusal, envelopeId } = single(rows)
  return refusal === null ? { ok: true, envelopeId } : { ok: false, reason: refusal }
}

/**
 * Ends a key's standing envelope: no call begins from the commit on. `open_holds`: it closes once they are resolved, which
 * `closeRevokedStanding` sees to.
 */
export async function closeStanding(
  trx: Transaction<Database>,
  scope: Scope,
  keyId: string,
): Promise<'closed' | 'open_holds'> {
  const { rows } = await sql<{ verdict: 'closed' | 'open_holds' }>`
    select close_standing(${scope.projectId}, ${keyId}) as verdict`.execute(trx)
  return single(rows).verdict
}

/** Sends idle standing money home, of any tenant, and says how many pockets it emptied. Many at once do no harm. */
export async function emptyIdleStanding(db: Kysely<Database>, idle: string = IDLE_INTERVAL): Promise<number> {
  const { rows } = await sql<{ emptied: number }>`
    select empty_idle_standing(${idle}::interval, ${TURN_LIMIT}) as emptied`.execute(db)
  return single(rows).emptied
}

/**
 * Closes the standing envelopes of revoked keys whose holds are resolved by now, of any tenant. One that cannot be closed
 * (`verify` names it, or its clock is ahead) keeps no other open, however many there are.
 */
export async function closeRevokedStanding(db: Kysely<Database>): Promise<number> {
  let closed = 0
  let last: string | null = null
  while (closed < TURN_LIMIT) {
    const page = await closableStanding(db, last)
    for (const { envelopeId, projectId } of page) {
      const verdict = await closeTree(db, { projectId }, { envelopeId, reason: 'key_revoked' }).catch(passOver)
      if (verdict === 'closed') closed += 1
    }
    last = page.at(-1)?.envelopeId ?? null
    if (page.length < TURN_LIMIT) break
  }
  return closed
}

async function closableStanding(db: Kysely<Database>, after: string | null) {
  const { rows } = await sql<{ envelopeId: string; projectId: string }>`
    select e.id as "envelopeId", e.project_id as "projectId" from envelope e
    where e.kind = 'standing' and e.gate = 'closing' and (${after}::uuid is null or e.id > ${after}) and not exists (
      select from account a where a.kind = 'pocket' and a.envelope_id = e.id and a.pending_debit > 0
    ) order by e.id limit ${TURN_LIMIT}`.execute(db)
  return rows
}

/** A database that is away fails the turn; anything else fails one envelope. */
function passOver(error: unknown): undefined {
  if (isStoreUnavailable(error) && !(error instanceof Problem)) throw error
}

function single<Row>(rows: readonly Row[]): Row {
  const [row] = rows
  if (row === undefined) throw new Error('the function returned no row')
  return row
}
