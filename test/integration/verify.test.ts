import { executeCall } from '#calls/execute.ts'
import { newId } from '#db/ids.ts'
import { topUpEnvelope } from '#db/ledger.ts'
import { BEFORE_ALL, piecesOf, readFrontier } from '#db/journal-range.ts'
import { sealOnce } from '#db/seal.ts'
import { readState, writeState } from '#db/verify-state.ts'
import { verifyLedger, type VerifyOptions } from '#db/verify.ts'
import { sql } from 'kysely'
import pg from 'pg'
import { expect, test } from 'vitest'
import { expectVerified, QUESTION, withOpenAttempt } from '../support/open-attempt.ts'
import { pay, sealAll, wrongChecks } from '../support/seals.ts'
import { CAPTURE, createBusyWorld, tamper } from '../support/tamper.ts'
import { createWorld, type World } from '../support/world.ts'

test.each([
  {
    what: 'a balance in the middle of an account',
    change: `update transfer set debit_balance = debit_balance + 1 where id = ${CAPTURE}`,
    checks: ['never negative'],
    says: 'says balance',
  },
  {
    what: 'a hold of more than there was',
    change: `update transfer set debit_held = debit_balance + 1 where id = ${CAPTURE}`,
    checks: ['never negative'],
    says: 'holds',
  },
  {
    what: 'two versions that changed places',
    change: `update transfer t set debit_version = (select sum(debit_version) from transfer where id in (${CAPTURE},
        (select pending_id from transfer where id = ${CAPTURE}))) - debit_version
      where id in (${CAPTURE}, (select pending_id from transfer where id = ${CAPTURE}))`,
    checks: ['never negative'],
    says: 'transfer',
  },
  {
    what: 'a version that stands twice',
    change: `update transfer set debit_version = debit_version - 1 where id = ${CAPTURE}`,
    checks: ['versions', 'never negative'],
    says: 'not numbered one by one',
  },
  {
    what: 'an account that says another version',
    change: `update account set version = version + 1 where kind = 'wallet' and balance_class = 'direct'`,
    checks: ['versions'],
    says: 'it is at version',
  },
  {
    what: 'a capture that was removed',
    change: `delete from transfer where id = ${CAPTURE}`,
    checks: ['fold', 'versions', 'never negative', 'holds', 'attempts', 'answers'],
    says: 'its balance is',
  },
  {
    what: 'a hold whose attempt was removed',
    change: `delete from attempt where hold_id = (select pending_id from transfer where id = ${CAPTURE})`,
    checks: ['attempts', 'answers'],
    says: 'a hold without an attempt',
  },
  {
    what: 'a movement that nothing allows',
    change: `update transfer set code = 'breakage' where code = 'deposit' and debit_version is null and seq = (
      select min(seq) from transfer where code = 'deposit')`,
    checks: ['movements'],
    says: 'is a breakage from outside to wallet',
  },
  {
    what: 'a child that was given more than its cap',
    change: `update account set cap = 999 where cap = 2000`,
    checks: ['children', 'accounts'],
    says: 'its cap is 999',
  },
  {
    what: 'a child of another parent',
    change: `update envelope set parent_id = wallet_id where kind = 'child'`,
    checks: ['children', 'envelopes'],
    says: 'by another envelope than its parent',
  },
  {
    what: 'a lot with more than came into it',
    change: `update lot set free = free + 1`,
    checks: ['lots'],
    says: 'its movements leave',
  },
])('verify finds $what, and names it', async ({ change, checks, says }) => {
  const world = await createBusyWorld()
  await tamper(world, change)
  const wrong = await wrongChecks(world)
  expect(Object.keys(wrong)).toEqual(checks)
  expect(Object.values(wrong).join('\n')).toContain(says)
})

test.each([
  { what: 'whose hold was changed', change: `update attempt set held = held + 1 where state = 'sent'` },
  { what: 'that was made out of nothing', change: `update attempt set hold_id = uuidv7() where state = 'sent'` },
  { what: 'that was removed', change: `delete from attempt where state = 'sent'` },
])('the quick verification finds an open attempt $what', async ({ change }) => {
  const world = await createWorld()
  const { controller, call } = await withOpenAttempt(world)
  expect(await wrongChecks(world, { mode: 'quick' })).toEqual({})
  await tamper(world, change)
  expect(Object.keys(await wrongChecks(world, { mode: 'quick' }))).toEqual(['holds'])
  controller.abort()
  await call.catch(() => {})
})

test('the journal is read whole and once, whatever the pieces', async () => {
  const world = await createBusyWorld()
  const { upTo } = await readFrontier(world.db)
  const whole = await verifyLedger(world.db)
  for (const pieceRows of [1, 2, 3, 7, 1_000]) {
    const next = piecesOf(world.db, { after: BEFORE_ALL, upTo }, pieceRows)
    let pieces = 0
    for (let piece = await next(); piece; piece = await next()) pieces += 1
    const { checks, ok } = await verifyLedger(world.db, { pieceRows })
    expect(ok).toBe(true)
    expect(checks.map(({ name, rows }) => [name, rows])).toEqual(whole.checks.map(({ name, rows }) => [name, rows]))
    expect(pieces).toBe(Math.floor((whole.checks[0]?.rows ?? 0) / pieceRows) + 1)
  }
})

test('the incremental verification looks at what came since, and goes on from what it wrote down', async () => {
  const world = await createBusyWorld()
  await sealAll(world)
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const first = await verifyLedger(world.db)
  await executeCall(engine, run.request('later', QUESTION))
  await sealAll(world)
  const second = await incrementally(world, first.state)
  expect(second.checks.filter(({ ok }) => !ok)).toEqual([])
  expect(second.checks.find(({ name }) => name === 'journal')?.rows).toBe(2)
  expect(second.checks.find(({ name }) => name === 'seals')?.rows).toBe(1)
  const third = await incrementally(world, second.state)
  expect(third).toMatchObject({ ok: true })
  expect(third.checks.find(({ name }) => name === 'journal')?.rows).toBe(0)
})

function incrementally(world: World, state: VerifyOptions['since']) {
  if (!state) throw new Error('nothing was recorded')
  return verifyLedger(world.db, { mode: 'incremental', since: readState(writeState(state)) })
}

test.each([
  {
    what: 'a new row that was edited',
    change: `update transfer set amount = amount + 1 where code = 'top_up' and seq = (
      select max(seq) from transfer)`,
    check: 'fold',
  },
  {
    what: 'an account that nothing moved',
    change: `update account set posted_credit = posted_credit + 1
      where kind = 'wallet' and balance_class = 'credit'`,
    check: 'fold',
  },
  {
    what: 'a row that was slipped in before',
    change: `update transfer set xid = '1' where seq = (
      select max(seq) from transfer)`,
    check: 'fold',
  },
])('the incremental verification finds $what', async ({ change, check }) => {
  const world = await createBusyWorld()
  const { state } = await verifyLedger(world.db)
  await world.openRun({ direct: 77n })
  await tamper(world, change)
  const { checks, state: next } = await incrementally(world, state)
  expect(checks.filter(({ ok }) => !ok).map(({ name }) => name)).toContain(check)
  expect(next).toBeUndefined()
})

test('a ledger that is written all the time is right each time it is verified', async () => {
  const world = await createBusyWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 50_000_000_000n })
  let isDone = false
  const writer = async (name: string): Promise<void> => {
    for (let index = 0; !isDone; index += 1) await executeCall(engine, run.request(`${name}/${index}`, QUESTION))
  }
  const money = async (): Promise<void> => {
    while (!isDone) {
      const fundings = [{ id: newId(Date.now()), balanceClass: 'credit', currency: 'USD', amount: 1n } as const]
      await topUpEnvelope(world.db, world.scope, { envelopeId: run.envelopeId, fundings })
      await pay(world)
      await sealOnce(world.db, undefined)
    }
  }
  const writers = [writer('x'), writer('y'), writer('z'), money()]
  try {
    let state: VerifyOptions['since']
    for (let round = 0; round < 12; round += 1) {
      const pieceRows = round % 2 === 0 ? 10 : 1_000
      const mode = state && round % 3 === 0 ? 'incremental' : 'everything'
      const verification = await verifyLedger(world.db, { pieceRows, mode, ...(state && { since: state }) })
      expect(verification.checks.filter(({ ok }) => !ok)).toEqual([])
      state = verification.state
    }
  } finally {
    isDone = true
    await Promise.all(writers)
  }
  await expectVerified(world)
})

test('what was written behind a transaction that stays open is verified as well', async () => {
  const world = await createBusyWorld()
  const client = new pg.Client(world.database.adminUrl)
  await client.connect()
  try {
    await client.query('begin')
    await client.query('select pg_current_xact_id()')
    await pay(world)
    await world.openRun({ direct: 9n, credit: 3n })
    await expectVerified(world)
    await tamper(world, `update account set posted_credit = posted_credit + 1 where kind = 'pocket' and version = 1`)
    expect(Object.keys(await wrongChecks(world))).toContain('fold')
    await client.query('rollback')
  } finally {
    await client.end()
  }
})

test('a journal from a cluster that was further on is verified, and nothing is sealed behind its back', async () => {
  const world = await createBusyWorld()
  await tamper(world, `update transfer set xid = (xid::text::bigint + 1000000000)::text::xid8`)
  const { ok, checks } = await verifyLedger(world.db)
  expect(ok).toBe(true)
  expect(checks.find(({ name }) => name === 'journal')).toMatchObject({ note: expect.stringContaining('pg_resetwal') })
  expect(await sealOnce(world.db, undefined)).toEqual({ kind: 'ahead' })
  const { rows } = await sql`select from seal`.execute(world.db)
  expect(rows).toEqual([])
})
