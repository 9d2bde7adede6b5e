import { executeCall } from '#calls/execute.ts'
import { ledgerId } from '#calls/charge.ts'
import { accountBalance, walletBalances } from '#db/balance.ts'
import { correct } from '#db/correction.ts'
import { settle } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { readInstant } from '#db/instant.ts'
import { closeEnvelope, deposit, setGate } from '#db/ledger.ts'
import { readReport, readReportAt } from '#db/report.ts'
import { beginClosing, finishRun } from '#db/run-end.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { expectVerified, QUESTION, resolution, withOpenAttempt } from '../support/open-attempt.ts'
import { tellMoneyStory } from '../support/money-story.ts'
import { createWorld, type World } from '../support/world.ts'

/** A world with runs, calls, an open envelope and a closed one. */
async function livelyWorld() {
  const world = await createWorld()
  const engine = await world.startEngine()
  const first = await world.openRun({ direct: 1_000_000_000n, credit: 300_000n })
  const second = await world.openRun({ direct: 500_000_000n })
  for (const index of [1, 2, 3]) {
    await executeCall(engine, first.request(`call/${index}`, QUESTION, { model: 'research' }))
    await executeCall(engine, second.request(`call/${index}`, QUESTION))
  }
  await setGate(world.db, world.scope, { envelopeId: second.envelopeId, gate: 'closing', reason: 'test' })
  await closeEnvelope(world.db, world.scope, { envelopeId: second.envelopeId, reason: 'test' })
  await executeCall(engine, first.request('call/4', QUESTION, { model: 'research' }))
  return { world, engine, first, second }
}

test('a tree of envelopes, an exchange and a debt leave every account with what its movements add up to', async () => {
  const world = await createWorld()
  const instants = await tellMoneyStory(world)
  const accounts = await world.db.selectFrom('account').select('id').execute()
  for (const at of instants) {
    for (const { id } of accounts) {
      const balance = await accountBalance(world.db, world.scope, { accountId: id, at, audience: 'operator' })
      expect(balance).toMatchObject({ ...(await folded(world, id, at)) })
    }
  }
  await expectVerified(world)
})

/** Every instant at which something was recorded, and one before and after all. */
async function instantsOf(world: World) {
  const { rows } = await sql<{ at: string }>`
    select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at from (
      select distinct recorded_at as at from transfer union select min(recorded_at) - interval '1 hour' from transfer
      union select clock_timestamp()) x order by 1`.execute(world.db)
  return rows.map((row) => row.at)
}

/** What an account had, by adding up the whole journal. */
async function folded(world: World, accountId: string, at: string) {
  const { rows } = await sql<{ posted: bigint; held: bigint }>`
    select coalesce(sum(case when code in ('hold', 'void', 'expire') then 0
        when credit_account = ${accountId} then amount else -amount end), 0)::bigint as posted,
      coalesce(sum(case when code = 'hold' then amount else -released end), 0)::bigint as held
    from transfer where ${accountId} in (debit_account, credit_account) and recorded_at <= ${at}::timestamptz`.execute(
    world.db,
  )
  return rows[0]
}

test('at every instant at which something was recorded, every account has what its movements add up to', async () => {
  const { world } = await livelyWorld()
  const accounts = await world.db.selectFrom('account').select(['id', 'kind']).execute()
  expect(new Set(accounts.map(({ kind }) => kind))).toContain('provider_cost')
  const instants = await instantsOf(world)
  for (const at of instants) {
    let total = 0n
    for (const { id } of accounts) {
      const balance = await accountBalance(world.db, world.scope, { accountId: id, at, audience: 'operator' })
      expect(balance).toMatchObject({ ...(await folded(world, id, at)) })
      total += balance?.posted ?? 0n
    }
    expect(total).toBe(0n)
  }
  await expectVerified(world)
})

test('a wallet as of an instant is its accounts and the envelopes that were open then', async () => {
  const { world, second } = await livelyWorld()
  const wallet = await world.db.selectFrom('wallet').select('id').executeTakeFirstOrThrow()
  const accounts = await world.db.selectFrom('account').selectAll().where('kind', 'in', ['wallet', 'pocket']).execute()
  for (const at of await instantsOf(world)) {
    for (const balance of await walletBalances(world.db, world.scope, { walletId: wallet.id, at })) {
      const ofMoney = accounts.filter((each) => each.balance_class === balance.balanceClass)
      const sums = { wallet: 0n, pocket: 0n }
      for (const { id, kind } of ofMoney) {
        sums[kind === 'wallet' ? 'wallet' : 'pocket'] += (await folded(world, id, at))?.posted ?? 0n
      }
      expect([balance.available, balance.inEnvelopes]).toEqual([sums.wallet, sums.pocket])
    }
  }
  const closed = accounts.find((account) => account.envelope_id === second.envelopeId)
  expect(closed?.gate).toBe('closed')
})

test('an instant is final only once no transaction can write behind it', async () => {
  const world = await createWorld()
  const wallet = await world.db.selectFrom('wallet').select('id').executeTakeFirstOrThrow()
  const account = await world.db
    .selectFrom('account')
    .select('id')
    .where('kind', '=', 'wallet')
    .where('balance_class', '=', 'direct')
    .executeTakeFirstOrThrow()
  const balance = async (at: string) =>
    (await accountBalance(world.db, world.scope, { accountId: account.id, at, audience: 'operator' }))?.posted
  const seen = await world.db.transaction().execute(async (trx) => {
    await deposit(trx, world.scope, {
      id: newId(Date.now()),
      walletId: wallet.id,
      balanceClass: 'direct',
      currency: 'USD',
      amount: 7n,
      reference: 'slow',
    })
    const instant = await readInstant(world.db, undefined)
    if (!instant) throw new Error('now is not ahead of the clock')
    return { instant, before: await balance(instant.at) }
  })
  expect(seen.instant.final).toBe(false)
  expect(await balance(seen.instant.at)).toBe((seen.before ?? 0n) + 7n)
  const { rows } = await sql<{ at: string }>`
    select (clock_timestamp() - interval '7 seconds')::text as at`.execute(world.db)
  expect(await readInstant(world.db, rows[0]?.at)).toMatchObject({ final: true })
  expect(await readInstant(world.db, '2999-01-01T00:00:00Z')).toBeUndefined()
})

test('the report as of an instant, and each revision, is the report that was read then, a correction after the close included', async () => {
  const world = await createWorld()
  const { run, attempt, pocket, controller, call, engine } = await withOpenAttempt(world)
  const { runId } = run
  const seen = [await readReport(world.db, world.scope, runId)]
  const look = async () => seen.push(await readReport(world.db, world.scope, runId))
  await settle(world.db, pocket, { item: resolution(attempt, 5n), mode: 'owner' })
  await look()
  controller.abort()
  await call.catch(() => {})
  await world.sandbox.control('PUT', '/faults/sandbox-steady', {})
  await executeCall(engine, run.request('two', QUESTION))
  await look()
  await beginClosing(world.db, world.scope, { runId, from: 'any', reason: 'cancelled', detail: 'by a person' })
  const end = { state: 'cancelled', reason: 'cancelled', detail: 'by a person' } as const
  await finishRun(world.db, world.scope, { runId, end, output: null })
  await look()
  const truth = {
    holdId: attempt.holdId,
    correctionId: ledgerId(attempt, 'correction'),
    debtId: ledgerId(attempt, 'debt'),
    amount: 3n,
    tokens: null,
    certainty: 'billed',
    usage: { input: 9, cachedInput: 0, output: 1 },
    detail: null,
    answerId: null,
    answer: null,
  } as const
  expect(await correct(world.db, pocket, truth)).toBe('corrected')
  await look()
  expect(seen.map((report) => report?.state)).toEqual(['running', 'running', 'running', 'cancelled', 'cancelled'])
  expect(new Set(seen.map((report) => report?.revision)).size).toBe(5)
  for (const report of seen) {
    if (!report) throw new Error('the run is there')
    const { asOf, revision, totals, state } = report
    const then = await readReportAt(world.db, world.scope, { runId, view: { asOf } })
    expect(then).toEqual({ ...report, asOf: expect.any(String) })
    // A revision lasts until the next entry: a call may be opened meanwhile, and the run may begin to end.
    const revised = await readReportAt(world.db, world.scope, { runId, view: { revision } })
    expect(revised).toMatchObject({ revision, totals, envelope: { pockets: report.envelope.pockets } })
    if (state === 'cancelled') expect(revised).toEqual({ ...report, asOf: expect.any(String) })
  }
  expect(await readReportAt(world.db, world.scope, { runId, view: { revision: 99 } })).toBe('unknown_revision')
  const before = await readReportAt(world.db, world.scope, { runId, view: { asOf: '2020-01-01T00:00:00Z' } })
  expect(before).toBe('before_run')
})
