import { executeCall } from '#calls/execute.ts'
import { takeOver } from '#calls/lost.ts'
import { voidLost } from '#calls/reconcile.ts'
import { correct } from '#db/correction.ts'
import { openAttempts } from '#db/call.ts'
import { post, settle, type Margin, type SettleItem } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { verifyLedger } from '#db/verify.ts'
import { parseDecimal } from '#domain/money.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { chargedOf, counterparties, createMarginWorld, yuan } from '../support/margins.ts'
import { expectVerified, QUESTION, resolution, withOpenAttempt } from '../support/open-attempt.ts'
import { holdOf, openCalls, pocketOf, registerForAnHour, settlementOf } from '../support/storm.ts'
import { tamper } from '../support/tamper.ts'
import { requestsSeen, type World } from '../support/world.ts'

async function billed(world: World): Promise<bigint> {
  const parsed = (await requestsSeen(world.sandbox)).map((request) => parseDecimal(request.billed))
  return parsed.reduce((sum, each) => sum + (each.ok ? each.nano : 0n), 0n)
}

function marginFor(cost: bigint): Margin {
  const [marginId, soldId, boughtId] = [newId(Date.now()), newId(Date.now()), newId(Date.now())]
  return { marginId, soldId, boughtId, cost, currency: 'USD', converted: cost, quoteId: null }
}

test('a route that is marked up is held and paid at the sell price, and providers have what they bill', async () => {
  const world = await createMarginWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  expect((await executeCall(engine, run.request('a', QUESTION))).kind).toBe('answered')
  const [bill, charged] = [await billed(world), await chargedOf(world)]
  expect(charged).toBeGreaterThanOrEqual((bill * 1125n) / 1000n)
  expect(charged).toBeLessThanOrEqual((bill * 1125n) / 1000n + 2n)
  expect(await counterparties(world)).toEqual({ 'provider_cost USD': bill, 'revenue USD': charged - bill })
  await expectVerified(world)
})

test('what is sold in another currency than it costs is exchanged at the rate of its plan', async () => {
  const world = await createMarginWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({}, yuan(1_000_000_000n))
  const answer = await executeCall(engine, run.request('a', QUESTION, { model: 'abroad' }))
  expect(answer.kind).toBe('answered')
  const [bill, charged] = [await billed(world), await chargedOf(world)]
  const converted = (bill * 72n + 9n) / 10n
  expect(await counterparties(world)).toEqual({
    'provider_cost CNY': 0n,
    'provider_cost USD': bill,
    'exchange CNY': converted,
    'exchange USD': -bill,
    'revenue CNY': charged - converted,
  })
  await expectVerified(world)
})

test('without a rate a route in another currency is skipped, and says why', async () => {
  const world = await createMarginWorld()
  const { rows } = await sql<{ id: string }>`select organisation_id as id from project`.execute(world.db)
  await tamper(world, `update quote set expires_at = effective_at where organisation_id = '${rows[0]?.id}'`)
  const engine = await world.startEngine()
  const run = await world.openRun({}, yuan(1_000_000_000n))
  expect(await executeCall(engine, run.request('a', QUESTION, { model: 'abroad' }))).toMatchObject({
    kind: 'failed',
    reason: 'no_route',
    detail: 'abroad: no_quote',
  })
})

test('a route at cost books no margin', async () => {
  const world = await createMarginWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await executeCall(engine, run.request('a', QUESTION, { model: 'plain' }))
  expect(await counterparties(world)).toEqual({ 'provider_cost USD': await billed(world) })
  await expectVerified(world)
})

test('a lost attempt costs its hold at cost, and a void by hand takes both back', async () => {
  const world = await createMarginWorld()
  const { engine, attempt, call, controller } = await withOpenAttempt(world)
  engine.instance.owners.delete(attempt.owner)
  expect(await takeOver(engine, world.scope, attempt)).toBe('settled')
  const { rows } = await sql<{ held: bigint; cost: bigint }>`
    select held, (plan->'cost'->>'held')::bigint as cost from attempt`.execute(world.db)
  const [planned] = rows
  if (!planned) throw new Error('no attempt')
  expect(planned.held).toBeGreaterThan(planned.cost)
  expect(await counterparties(world)).toEqual({
    'provider_cost USD': planned.cost,
    'revenue USD': planned.held - planned.cost,
  })
  await expectVerified(world)
  const request = { callId: attempt.callId, number: attempt.number, by: 'test', reason: 'not on the bill' }
  expect(await voidLost(world.db, world.scope, request)).toBe('voided')
  expect(await counterparties(world)).toEqual({ 'provider_cost USD': 0n, 'revenue USD': 0n })
  await expectVerified(world)
  controller.abort()
  await call
})

test('late truth corrects the margin and the exchange with the charge, in both directions', async () => {
  const world = await createMarginWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({}, yuan(100_000_000_000n))
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { hang: true })
  const controller = new AbortController()
  const call = executeCall(engine, run.request('a', QUESTION, { model: 'abroad', signal: controller.signal }))
  await expect.poll(async () => (await openAttempts(world.db, world.scope, run.runId)).length).toBe(1)
  const [attempt] = await openAttempts(world.db, world.scope, run.runId)
  if (!attempt) throw new Error('no attempt is open')
  engine.instance.owners.delete(attempt.owner)
  await takeOver(engine, world.scope, attempt)
  const pocket = { ...world.scope, accountId: attempt.accountId }
  // 1000 in and 200 out: 720 000 nano of USD, sold in CNY at 7.2 and 5 % more.
  const cases = [
    { usage: { input: 1000, cachedInput: 0, output: 200 }, cost: 720_000n, amount: 5_443_200n },
    { usage: { input: 400_000, cachedInput: 0, output: 0 }, cost: 160_000_000n, amount: 1_209_600_000n },
    { usage: { input: 10, cachedInput: 0, output: 0 }, cost: 4_000n, amount: 30_240n },
  ]
  for (const { usage, cost, amount } of cases) {
    const converted = (cost * 72n + 9n) / 10n
    const verdict = await correct(world.db, pocket, {
      holdId: attempt.holdId,
      correctionId: newId(Date.now()),
      debtId: newId(Date.now()),
      amount,
      tokens: BigInt(usage.input + usage.output),
      certainty: 'billed',
      usage,
      detail: null,
      answerId: null,
      answer: null,
    })
    expect(verdict).toBe('corrected')
    expect(await counterparties(world)).toEqual({
      'provider_cost CNY': 0n,
      'provider_cost USD': cost,
      'exchange CNY': converted,
      'exchange USD': -cost,
      'revenue CNY': amount - converted,
    })
    await expectVerified(world)
  }
  controller.abort()
  await call
})

test('what is billed above its hold has its margin as well, and the debt is at the sell price', async () => {
  const world = await createMarginWorld()
  const { attempt, pocket, call, controller, engine } = await withOpenAttempt(world)
  engine.instance.owners.delete(attempt.owner)
  const item: SettleItem = {
    ...resolution(attempt, 2_000_000_000n),
    certainty: 'estimated',
    margin: marginFor(attempt.held / 2n),
  }
  expect((await settle(world.db, pocket, { item, mode: 'owner' })).verdict).toBe('settled')
  expect((await settle(world.db, pocket, { item, mode: 'owner' })).verdict).toBe('replayed')
  expect(await counterparties(world)).toEqual({
    'provider_cost USD': attempt.held / 2n,
    'revenue USD': 2_000_000_000n - attempt.held / 2n,
  })
  controller.abort()
  await expect(call).rejects.toThrow('mismatch')
})

test('many settlements with margins go in one commit, a loss is booked the other way, and none goes apart', async () => {
  const world = await createMarginWorld()
  const instanceId = await registerForAnHour(world.db)
  const run = await world.openRun({ direct: 1_000_000n })
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const calls = await openCalls(world.db, world.scope, { ...run, count: 6 })
  const reserves = calls.map((call) => ({ pocket, item: holdOf(call, 100n) }))
  await post(world.db, { instanceId, settles: [], reserves })
  const costs = [10n, 50n, 60n, 0n, undefined, 1n]
  const settles = calls.map((call, index) => {
    const cost = costs[index]
    const item = settlementOf(call, index === 5 ? null : 50n)
    return { pocket, item: cost === undefined ? item : { ...item, margin: marginFor(cost) } }
  })
  const { settles: verdicts } = await post(world.db, { instanceId, settles, reserves: [] })
  expect(verdicts.map((each) => each?.verdict)).toEqual(Array.from({ length: 6 }, () => 'settled'))
  expect(await counterparties(world)).toEqual({ 'provider_cost USD': 170n, 'revenue USD': 80n })
  const { rows } = await sql<{ moved: string }>`
    select d.kind || ' ' || c.kind || ' ' || t.amount as moved from transfer t
    join account d on d.id = t.debit_account join account c on c.id = t.credit_account
    where t.code = 'margin' order by t.seq`.execute(world.db)
  expect(rows.map(({ moved }) => moved)).toEqual([
    'provider_cost revenue 40',
    'revenue provider_cost 10',
    'provider_cost revenue 50',
  ])
})

test('a cost that no column holds is refused by name, and moves nothing', async () => {
  const world = await createMarginWorld()
  const { attempt, pocket, call, controller } = await withOpenAttempt(world)
  for (const cost of [-1n, 10n ** 30n]) {
    const item = { ...resolution(attempt, 5n), margin: marginFor(cost) }
    expect((await settle(world.db, pocket, { item, mode: 'owner' })).verdict).toBe('invalid_amount')
  }
  controller.abort()
  await call
  await expectVerified(world)
})

test('an answer that comes second is settled, and told to be unused', async () => {
  const world = await createMarginWorld()
  const instanceId = await registerForAnHour(world.db)
  const run = await world.openRun({ direct: 1_000_000n })
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const [call, other] = await openCalls(world.db, world.scope, { ...run, count: 2 })
  if (!call || !other) throw new Error('no calls')
  const hold = (number: number) => ({ pocket, item: holdOf(call, 100n, { number }) })
  const told = async (...items: readonly SettleItem[]) => {
    const posted = await post(world.db, { instanceId, settles: items.map((item) => ({ pocket, item })), reserves: [] })
    return posted.settles.map((each) => each?.verdict)
  }
  await post(world.db, { instanceId, settles: [], reserves: [hold(1), { pocket, item: holdOf(other, 100n) }] })
  expect(await told(settlementOf(call, 5n))).toEqual(['settled'])
  await post(world.db, { instanceId, settles: [], reserves: [hold(2)] })
  // Late truth answers the call while its second attempt is in flight.
  const truth = settlementOf(call, 6n, { answer: 'first' })
  const late = { ...truth, amount: 6n, correctionId: newId(Date.now()), certainty: 'billed' } as const
  expect(await correct(world.db, pocket, late)).toBe('corrected')
  const second = settlementOf(call, 7n, { number: 2, answer: 'second' })
  expect(await told(second, settlementOf(other, 1n, { answer: 'other' }))).toEqual(['settled_unused', 'settled'])
  expect((await settle(world.db, pocket, { item: second, mode: 'owner' })).verdict).toBe('replayed')
  const { rows } = await sql<{ use: string }>`
    select use from transfer where call_id = ${call.callId} and code = 'capture' order by seq`.execute(world.db)
  expect(rows.map(({ use }) => use)).toEqual(['wasted', 'wasted'])
})

test('an answer beyond its hold that comes second is told to be unused as well', async () => {
  const world = await createMarginWorld()
  const instanceId = await registerForAnHour(world.db)
  const run = await world.openRun({ direct: 1_000_000n })
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const [call] = await openCalls(world.db, world.scope, { ...run, count: 1 })
  if (!call) throw new Error('no call')
  await post(world.db, { instanceId, settles: [], reserves: [{ pocket, item: holdOf(call, 100n) }] })
  await settle(world.db, pocket, { item: settlementOf(call, 5n), mode: 'owner' })
  await post(world.db, { instanceId, settles: [], reserves: [{ pocket, item: holdOf(call, 100n, { number: 2 }) }] })
  const truth = settlementOf(call, 6n, { answer: 'first' })
  await correct(world.db, pocket, {
    ...truth,
    amount: 6n,
    correctionId: newId(Date.now()),
    certainty: 'billed',
  })
  const second = settlementOf(call, 170n, { number: 2, answer: 'second' })
  expect((await settle(world.db, pocket, { item: second, mode: 'owner' })).verdict).toBe('settled_unused')
})

const EDITS = [
  [`delete from transfer where code = 'margin'`, 'margins', 'books a cost of'],
  [`update transfer set amount = amount - 1 where code = 'margin'`, 'margins', 'books a cost of'],
  [
    `insert into transfer (id, project_id, code, debit_account, credit_account, currency, amount, call_id, attempt)
       select uuidv7(), project_id, code, debit_account, credit_account, currency, amount, uuidv7(), 1
       from transfer where code = 'margin'`,
    'attempts',
    'a margin without an attempt',
  ],
  [`update attempt set plan = plan #- '{cost}' where plan ? 'cost'`, 'margins', 'is planned at cost'],
  [
    `update attempt set plan = jsonb_set(plan, '{cost,markupBps}', '1251') where plan ? 'cost'`,
    'margins',
    'another markup',
  ],
  [
    `update attempt set plan = jsonb_set(plan, '{prices,inputNanoPerMillion}', '"450000001"') where plan ? 'cost'`,
    'margins',
    'is sold at other prices',
  ],
  [
    `update attempt set plan = jsonb_set(plan, '{cost,prices,inputNanoPerMillion}', '"1"') where plan ? 'cost'`,
    'prices',
    'was planned at other prices',
  ],
] as const

test.each(EDITS)('verify finds %s', async (edit, check, wrong) => {
  const world = await createMarginWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await executeCall(engine, run.request('a', QUESTION))
  await expectVerified(world)
  await tamper(world, edit)
  for (const options of [{}, { maxWholeRows: 0 }]) {
    const { checks } = await verifyLedger(world.db, options)
    expect(checks.find(({ name }) => name === check)?.firstWrong).toContain(wrong)
  }
})
