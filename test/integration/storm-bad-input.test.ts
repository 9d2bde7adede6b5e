import { post, settle } from '#db/hold.ts'
import { closeTree } from '#db/envelope.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope, openEnvelope, setGate } from '#db/ledger.ts'
import { refund } from '#db/refund.ts'
import { reverseDeposit } from '#db/reversal.ts'
import { sql } from 'kysely'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import {
  correcting,
  createSetting,
  depositing,
  everything,
  HUGE,
  reserving,
  settling,
  stranger,
  toppingUp,
  type Setting,
} from '../support/bad-input.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { forever, holdOf, openCalls, registerForAnHour, settlementOf } from '../support/storm.ts'
import { makeKey } from '../support/world.ts'

/** More than a BIGINT holds. */
const BEYOND = 10n ** 19n

const cases: readonly {
  readonly what: string
  readonly verdict: string
  readonly ask: (setting: Setting) => Promise<unknown>
}[] = [
  { what: 'a hold below zero', verdict: 'invalid_amount', ask: reserving(() => ({ item: { amount: -1n } })) },
  { what: 'a huge hold', verdict: 'invalid_amount', ask: reserving(() => ({ item: { amount: HUGE } })) },
  { what: 'a hold beyond any column', verdict: 'invalid_amount', ask: reserving(() => ({ item: { amount: BEYOND } })) },
  {
    what: 'a hold of tokens beyond any column',
    verdict: 'invalid_amount',
    ask: reserving(() => ({ item: { tokens: BEYOND } })),
  },
  {
    what: 'a hold of fewer than no tokens',
    verdict: 'invalid_amount',
    ask: reserving(() => ({ item: { tokens: -1n } })),
  },
  {
    what: 'a hold of an unknown account',
    verdict: 'unknown_pocket',
    ask: reserving(({ pocket }) => ({ pocket: { ...pocket, accountId: stranger() } })),
  },
  {
    what: 'a hold of another tenant',
    verdict: 'unknown_pocket',
    ask: reserving(({ pocket }) => ({ pocket: { ...pocket, projectId: stranger() } })),
  },
  {
    what: "a hold of another run's pocket",
    verdict: 'unknown_pocket',
    ask: reserving(({ otherPocket }) => ({ pocket: otherPocket })),
  },
  {
    what: 'a hold for a call of another run',
    verdict: 'unknown_call',
    ask: reserving(({ other, otherPocket }) => ({ pocket: otherPocket, item: { envelopeId: other.envelopeId } })),
  },
  {
    what: "a hold under another run's id",
    verdict: 'unknown_call',
    ask: reserving(({ other }) => ({ item: { runId: other.runId } })),
  },
  {
    what: 'a hold of an unknown call',
    verdict: 'unknown_call',
    ask: reserving(() => ({ item: { callId: stranger() } })),
  },
  {
    what: 'a hold again with another amount',
    verdict: 'mismatch',
    ask: reserving(({ open }) => ({ item: holdOf(open, 101n) })),
  },
  { what: 'a settlement below zero', verdict: 'invalid_amount', ask: settling(() => ({ item: { amount: -1n } })) },
  { what: 'a huge settlement', verdict: 'invalid_amount', ask: settling(() => ({ item: { amount: HUGE } })) },
  {
    what: 'a settlement beyond any column',
    verdict: 'invalid_amount',
    ask: settling(() => ({ item: { amount: BEYOND } })),
  },
  {
    what: 'a settlement of tokens beyond any column',
    verdict: 'invalid_amount',
    ask: settling(() => ({ item: { tokens: -BEYOND } })),
  },
  {
    what: 'a settlement of fewer than no tokens',
    verdict: 'invalid_amount',
    ask: settling(() => ({ item: { tokens: -1n } })),
  },
  {
    what: 'a settlement of a hold that never was',
    verdict: 'unknown_hold',
    ask: settling(({ fresh }) => ({ item: settlementOf(fresh, 1n) })),
  },
  {
    what: "a settlement on another run's pocket",
    verdict: 'unknown_hold',
    ask: settling(({ otherPocket }) => ({ pocket: otherPocket })),
  },
  {
    what: 'a settlement of another tenant',
    verdict: 'unknown_hold',
    ask: settling(({ pocket }) => ({ pocket: { ...pocket, projectId: stranger() } })),
  },
  {
    what: 'a settled hold again with another amount',
    verdict: 'mismatch',
    ask: settling(({ settled }) => ({ item: settlementOf(settled, 29n) })),
  },
  {
    what: 'a settled hold again as a void',
    verdict: 'mismatch',
    ask: settling(({ settled }) => ({ item: settlementOf(settled, null) })),
  },
  {
    what: 'a settled hold again by somebody else',
    verdict: 'already_resolved',
    ask: settling(({ settled }) => ({ item: { ...settlementOf(settled, 30n), resolutionId: stranger() } })),
  },
  { what: 'a correction below zero', verdict: 'invalid_amount', ask: correcting(-1n) },
  { what: 'a huge correction', verdict: 'invalid_amount', ask: correcting(HUGE) },
  { what: 'a correction beyond any column', verdict: 'invalid_amount', ask: correcting(BEYOND) },
  {
    what: 'a correction of another tenant',
    verdict: 'unknown_hold',
    ask: correcting(1n, () => ({ projectId: stranger() })),
  },
  {
    what: "a correction on another run's pocket",
    verdict: 'unknown_hold',
    ask: correcting(1n, ({ otherPocket }) => otherPocket),
  },
  { what: 'a deposit of nothing', verdict: 'invalid_amount', ask: depositing(0n) },
  { what: 'a deposit below zero', verdict: 'invalid_amount', ask: depositing(-1n) },
  { what: 'a deposit beyond any column', verdict: 'invalid_amount', ask: depositing(BEYOND) },
  { what: 'a huge deposit', verdict: 'invalid_amount', ask: depositing(HUGE) },
  { what: 'a deposit without a currency', verdict: 'wrong_currency', ask: depositing(1n, { currency: 'dollars' }) },
  { what: 'a deposit into no wallet', verdict: 'unknown_wallet', ask: depositing(1n, { walletId: newId(0) }) },
  { what: 'a top-up of nothing', verdict: 'invalid_amount', ask: toppingUp(0n) },
  { what: 'a top-up below zero', verdict: 'invalid_amount', ask: toppingUp(-1n) },
  { what: 'a top-up beyond any column', verdict: 'invalid_amount', ask: toppingUp(BEYOND) },
  { what: 'a huge top-up', verdict: 'invalid_amount', ask: toppingUp(HUGE) },
  { what: 'a top-up beyond the wallet', verdict: 'wallet_short', ask: toppingUp(10n ** 15n) },
  {
    what: 'a top-up in a currency that the wallet lacks',
    verdict: 'wallet_short',
    ask: toppingUp(1n, { currency: 'CNY' }),
  },
  { what: 'a top-up of no envelope', verdict: 'unknown_envelope', ask: toppingUp(1n, { envelopeId: newId(0) }) },
  {
    what: "the gate of another tenant's envelope",
    verdict: 'unknown',
    ask: ({ world, run }) => setGate(world.db, { projectId: stranger() }, { ...run, gate: 'closing', reason: 'x' }),
  },
  {
    what: "the close of another tenant's envelope",
    verdict: 'unknown',
    ask: ({ world, run }) => closeEnvelope(world.db, { projectId: stranger() }, { ...run, reason: 'x' }),
  },
  {
    what: 'the close of an envelope with an open hold',
    verdict: 'open_holds',
    ask: ({ world, run }) => closeEnvelope(world.db, world.scope, { ...run, reason: 'x' }),
  },
]

test('bad input is refused by name, and nothing is written', async () => {
  const setting = await createSetting()
  for (const { what, verdict, ask } of cases) {
    const before = await everything(setting.world)
    expect({ what, verdict: await ask(setting) }).toEqual({ what, verdict })
    expect({ what, after: await everything(setting.world) }).toEqual({ what, after: before })
  }
  await expectVerified(setting.world)
})

test.each(['frozen', 'closing', 'closed'] as const)('nothing is held in an envelope that is %s', async (gate) => {
  const setting = await createSetting()
  const { world, run, open, settled, pocket, process } = setting
  if (gate === 'closed') {
    await process.queue.settle(pocket, settlementOf(open, 5n))
    expect(await closeEnvelope(world.db, world.scope, { ...run, reason: 'x' })).toBe('closed')
  } else await setGate(world.db, world.scope, { ...run, gate, reason: 'x' })
  const before = await everything(world)
  expect(await reserving(() => ({}))(setting)).toBe(gate)
  expect(await settling(() => ({ item: settlementOf(settled, 29n) }))(setting)).toBe('mismatch')
  expect(await everything(world)).toEqual(before)
  if (gate !== 'frozen') expect(await toppingUp(1n)(setting)).toBe('envelope_closed')
  if (gate !== 'closed') expect(await settling(() => ({}))(setting)).toBe('settled')
  await expectVerified(world)
})

test('while the clock stands behind a movement nothing moves, and everybody hears why', async () => {
  const setting = await createSetting()
  const { world, process, pocket, otherPocket, other, walletId } = setting
  const apiKeyId = await makeKey(world.db, world.scope)
  const money = { balanceClass: 'direct', currency: 'USD' } as const
  const { id: depositId } = await world.db
    .selectFrom('transfer')
    .select('id')
    .where('code', '=', 'deposit')
    .orderBy('seq')
    .limit(1)
    .executeTakeFirstOrThrow()
  const admin = new pg.Client(world.database.adminUrl)
  await admin.connect()
  onTestFinished(() => admin.end())
  await admin.query(`update account set moved_at = clock_timestamp() + interval '1 hour' where id <> $1`, [
    otherPocket.accountId,
  ])
  const before = await everything(world)
  const refused = [
    reserving(() => ({}))(setting),
    settling(() => ({}))(setting),
    settling(() => ({ item: { amount: 101n } }))(setting),
    settle(world.db, pocket, { item: settlementOf(setting.open, 10n), mode: 'owner' }),
    correcting(1n)(setting),
    closeEnvelope(world.db, world.scope, { envelopeId: other.envelopeId, reason: 'x' }),
    toppingUp(1n)(setting),
    depositing(1n)(setting),
    openEnvelope(world.db, world.scope, {
      envelopeId: newId(Date.now()),
      runId: newId(Date.now()),
      apiKeyId,
      fundings: [{ ...money, id: newId(Date.now()), amount: 1n }],
    }),
    closeTree(world.db, world.scope, { envelopeId: other.envelopeId, reason: 'x' }),
    reverseDeposit(world.db, world.scope, { id: newId(Date.now()), depositId, shortfall: 'owe' }),
    refund(world.db, world.scope, { ...money, id: newId(Date.now()), walletId, amount: 1n, reference: 'late' }),
  ]
  for (const outcome of await Promise.allSettled(refused))
    expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'clock_backwards' } })
  expect(await everything(world)).toEqual(before)
  // One pocket's clock keeps nobody else from moving, not even in the same batch.
  const [call] = await openCalls(world.db, world.scope, { ...other, count: 1 })
  if (!call) throw new Error('no call')
  const both = await Promise.allSettled([
    process.queue.reserve(pocket, holdOf(setting.fresh, 1n), forever()),
    process.queue.reserve(otherPocket, holdOf(call, 1n), forever()),
  ])
  expect(both).toMatchObject([
    { status: 'rejected', reason: { code: 'clock_backwards' } },
    { value: { verdict: 'granted' } },
  ])
  await admin.query('update account set moved_at = clock_timestamp()')
  expect(await settling(() => ({}))(setting)).toBe('settled')
  await expectVerified(world)
})

test('one item that the database cannot take fails alone, and so does one of a process whose lease is over', async () => {
  const { world, fresh, open, pocket, process, run } = await createSetting()
  const [next] = await openCalls(world.db, world.scope, { ...run, count: 1 })
  if (!next) throw new Error('no call')
  const poisoned = { ...holdOf(fresh, 1n), owner: 'not an id' }
  const answers = await Promise.allSettled([
    process.queue.reserve(pocket, poisoned, forever()),
    process.queue.reserve(pocket, holdOf(next, 1n), forever()),
    process.queue.settle(pocket, settlementOf(open, 1n)),
  ])
  expect(answers).toMatchObject([
    { status: 'rejected' },
    { value: { verdict: 'granted' } },
    { value: { verdict: 'settled' } },
  ])
  const instanceId = await registerForAnHour(world.db)
  await sql`update instance set lease_until = clock_timestamp() where id = ${instanceId}`.execute(world.db)
  const before = await everything(world)
  const dead = await post(world.db, { instanceId, settles: [], reserves: [{ pocket, item: holdOf(fresh, 1n) }] })
  expect(dead.reserves[0]?.verdict).toBe('owner_dead')
  expect(await everything(world)).toEqual(before)
  await expectVerified(world)
})
