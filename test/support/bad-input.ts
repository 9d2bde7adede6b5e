import { correct } from '#db/correction.ts'
import type { PocketKey, ReserveItem, SettleItem } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { deposit, topUpEnvelope } from '#db/ledger.ts'
import { sql } from 'kysely'
import { forever, holdOf, openCalls, pocketOf, settlementOf, startProcess } from './storm.ts'
import { createWorld, type World } from './world.ts'

export const HUGE = 10n ** 15n + 1n

/** A run with an attempt that is open, one that is settled, and a call without any. */
export async function createSetting() {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000n })
  const other = await world.openRun({ direct: 1_000n })
  const calls = await openCalls(world.db, world.scope, { ...run, count: 3 })
  const [open, settled, fresh] = calls
  if (!open || !settled || !fresh) throw new Error('no calls')
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const otherPocket = await pocketOf(world.db, world.scope, { ...other, balanceClass: 'direct' })
  const process = await startProcess(world.database.appUrl)
  await process.queue.reserve(pocket, holdOf(open, 100n), forever())
  await process.queue.reserve(pocket, holdOf(settled, 50n), forever())
  await process.queue.settle(pocket, settlementOf(settled, 30n))
  const wallet = await world.db.selectFrom('wallet').select('id').executeTakeFirstOrThrow()
  return { world, run, other, open, settled, fresh, pocket, otherPocket, process, walletId: wallet.id }
}

export type Setting = Awaited<ReturnType<typeof createSetting>>

export const reserving =
  (change: (setting: Setting) => { readonly item?: Partial<ReserveItem>; readonly pocket?: PocketKey }) =>
  async (setting: Setting) => {
    const { item, pocket = setting.pocket } = change(setting)
    const hold = { ...holdOf(setting.fresh, 10n), ...item }
    return (await setting.process.queue.reserve(pocket, hold, forever())).verdict
  }

export const settling =
  (change: (setting: Setting) => { readonly item?: Partial<SettleItem>; readonly pocket?: PocketKey }) =>
  async (setting: Setting) => {
    const { item, pocket = setting.pocket } = change(setting)
    return (await setting.process.queue.settle(pocket, { ...settlementOf(setting.open, 10n), ...item })).verdict
  }

export const correcting =
  (amount: bigint, change: (setting: Setting) => Partial<PocketKey> = () => ({})) =>
  async (setting: Setting) =>
    correct(
      setting.world.db,
      { ...setting.pocket, ...change(setting) },
      {
        ...settlementOf(setting.settled, null),
        correctionId: newId(Date.now()),
        debtId: newId(Date.now()),
        amount,
        certainty: 'estimated',
      },
    )

export const toppingUp =
  (amount: bigint, change: { readonly currency?: string; readonly envelopeId?: string } = {}) =>
  async ({ world, run }: Setting) => {
    const { currency = 'USD', envelopeId = run.envelopeId } = change
    const fundings = [{ id: newId(Date.now()), balanceClass: 'direct', currency, amount }] as const
    return (await topUpEnvelope(world.db, world.scope, { envelopeId, fundings }))?.reason
  }

export const depositing =
  (amount: bigint, change: { readonly currency?: string; readonly walletId?: string } = {}) =>
  async ({ world, walletId }: Setting) => {
    const request = {
      id: newId(Date.now()),
      balanceClass: 'direct',
      currency: 'USD',
      reference: 'bad',
      amount,
    } as const
    return (await deposit(world.db, world.scope, { ...request, walletId, ...change })).verdict
  }

export const stranger = () => newId(Date.now())

/** All that the ledger has written: every account as it is, and how much of the rest there is. */
export async function everything({ db }: World): Promise<unknown> {
  const { rows } = await sql`
    select (select json_agg(a order by a.id) from account a) as accounts, (select json_agg(l order by l.id) from lot l) as lots,
      (select json_agg(l order by l.id) from lease l) as leases, (select json_agg(e order by e.id) from envelope e) as envelopes,
      (select json_agg(a order by a.call_id, a.number) from attempt a) as attempts, (select count(*) from transfer) as transfers,
      (select count(*) from refusal) as refusals, (select count(*) from event) as events,
      (select count(*) from payload) as payloads, (select json_agg(c order by c.id) from call c) as calls`.execute(db)
  return rows
}
