import { newId } from '#db/ids.ts'
import { closeEnvelope, deposit, openEnvelope, type Funding, type LotTerms } from '#db/ledger.ts'
import { sql } from 'kysely'
import pg from 'pg'
import { expect } from 'vitest'
import { expectVerified } from './open-attempt.ts'
import { makeKey, type World } from './world.ts'

/** Money that these tests deposit: in a currency of its own, so that the world's first deposits are not in the way. */
export const CURRENCY = 'EUR'

export async function walletOf(world: World): Promise<string> {
  const row = await world.db
    .selectFrom('wallet')
    .select('id')
    .where('project_id', '=', world.scope.projectId)
    .executeTakeFirstOrThrow()
  return row.id
}

export interface Grant extends Partial<LotTerms> {
  readonly currency?: string
}

/** Deposits credit as a lot and answers the deposit's and the lot's id. */
export async function grantLot(
  world: World,
  amount: bigint,
  grant: Grant = {},
): Promise<{ readonly depositId: string; readonly lotId: string }> {
  const { currency = CURRENCY, source = 'grant', priority = 100, expiresAt = null } = grant
  const { verdict, transferId } = await deposit(world.db, world.scope, {
    id: newId(Date.now()),
    walletId: await walletOf(world),
    balanceClass: 'credit',
    currency,
    amount,
    reference: `grant ${newId(Date.now())}`,
    lot: { source, priority, expiresAt },
  })
  if (verdict !== 'deposited' || transferId === null) throw new Error(`the deposit was refused: ${verdict}`)
  const row = await world.db
    .selectFrom('transfer')
    .select('lot_id')
    .where('id', '=', transferId)
    .executeTakeFirstOrThrow()
  return { depositId: transferId, lotId: row.lot_id ?? '' }
}

export function funding(amount: bigint, change: Partial<Funding> = {}): Funding {
  return { id: newId(Date.now()), balanceClass: 'credit', currency: CURRENCY, amount, ...change }
}

/** An envelope of its own, or why it was not opened. */
export async function fund(world: World, ...fundings: readonly Funding[]): Promise<string> {
  const envelopeId = newId(Date.now())
  const apiKeyId = await makeKey(world.db, world.scope)
  const request = { envelopeId, runId: newId(Date.now()), apiKeyId, fundings }
  await world.db.transaction().execute(async (trx) => {
    const refusal = await openEnvelope(trx, world.scope, request)
    if (refusal) throw new Error(refusal.reason)
  })
  return envelopeId
}

export async function close(world: World, envelopeId: string): Promise<void> {
  expect(await closeEnvelope(world.db, world.scope, { envelopeId, reason: 'test' })).toBe('closed')
}

/** Spends money of a pocket as a settled call would: no test here is about calls. */
export async function spend(world: World, envelopeId: string, amount: bigint): Promise<void> {
  await asAdmin(
    world,
    `select post_transfer(uuidv7(), project_id, 'overage', id, counterparty(project_id, 'provider_cost', currency), $2)
      from account where envelope_id = $1 and kind = 'pocket'`,
    [envelopeId, amount.toString()],
  )
}

/** Sends money of an open envelope's pocket home, as emptying an idle one does. */
export async function sendHome(world: World, envelopeId: string, amount: bigint): Promise<void> {
  await asAdmin(
    world,
    `select send_home(project_id, envelope_id, id, $2) from account where envelope_id = $1 and kind = 'pocket'`,
    [envelopeId, amount.toString()],
  )
}

/** Moves a lot's expiry into the past: no test waits for a clock. */
export async function letExpire(world: World, lotId: string): Promise<void> {
  await asAdmin(world, `update lot set expires_at = clock_timestamp() - interval '1 second' where id = $1`, [lotId])
}

export async function asAdmin(world: World, text: string, values: readonly string[] = []): Promise<void> {
  const admin = new pg.Client(world.database.adminUrl)
  await admin.connect()
  try {
    await admin.query(text, [...values])
  } finally {
    await admin.end()
  }
}

/** What is free of each lot, by id. */
export async function freeOf(world: World, ...lotIds: readonly string[]): Promise<readonly bigint[]> {
  const rows = await world.db.selectFrom('lot').select(['id', 'free']).where('id', 'in', lotIds).execute()
  return lotIds.map((id) => rows.find((row) => row.id === id)?.free ?? -1n)
}

/** The journal is right, every lot is the fold of its movements, and every credit wallet the sum of its lots. */
export async function expectLotsTrue(world: World): Promise<void> {
  await expectVerified(world)
  const { rows } = await sql`
    select l.id, l.free, l.opening, coalesce(sum(case when t.credit_account = l.account_id then t.amount else -t.amount end), 0) as moved
    from lot l left join transfer t on t.lot_id = l.id and l.account_id in (t.debit_account, t.credit_account)
    group by l.id having l.free <> l.opening
      + coalesce(sum(case when t.credit_account = l.account_id then t.amount else -t.amount end), 0)`.execute(world.db)
  expect(rows).toEqual([])
  const sums = await sql`
    select a.id from account a left join lot l on l.account_id = a.id
    where a.kind = 'wallet' and a.balance_class = 'credit'
    group by a.id having a.posted_credit - a.posted_debit <> coalesce(sum(l.free), 0)`.execute(world.db)
  expect(sums.rows).toEqual([])
}
