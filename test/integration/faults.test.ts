import { executeCall } from '#calls/execute.ts'
import type { Engine } from '#calls/engine.ts'
import { newId } from '#db/ids.ts'
import { topUpEnvelope } from '#db/ledger.ts'
import { pauseForMoney } from '#db/run-pause.ts'
import { verifyLedger } from '#db/verify.ts'
import { formatNano, parseDecimal } from '#domain/money.ts'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { createWorld, requestsSeen, type World } from '../support/world.ts'

async function billOf(world: World): Promise<bigint> {
  const amounts = (await requestsSeen(world.sandbox)).map((request) => parseDecimal(request.billed))
  return amounts.reduce((sum, each) => sum + (each.ok ? each.nano : 0n), 0n)
}

test('connections that are cut in the middle of everything lose no answer and send nothing twice', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: 20 })
  let isDone = false
  const storm = asAdmin(world, async (client) => {
    while (!isDone) {
      await client.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and usename = 'purser_app' and pid <> pg_backend_pid() and random() < 0.3`,
      )
      await client.query('select pg_sleep(0.05)')
    }
  })
  // As Temporal does: an absent store is asked again, at the same key.
  const persist = async (path: string): Promise<string> => {
    for (let round = 0; round < 200; round += 1) {
      try {
        return (await executeCall(engine, run.request(path, QUESTION))).kind
      } catch {
        continue
      }
    }
    return 'gave up'
  }
  const paths = Array.from({ length: 30 }, (_, index) => `call/${index}`)
  const kinds = await Promise.all(paths.map(persist))
  isDone = true
  await storm
  expect(new Set(kinds)).toEqual(new Set(['answered']))
  const answers = await world.providerAnswers()
  expect([...answers.values()]).toEqual(paths.map(() => 1))
  await expectVerified(world)
})

test('a grant whose reply was lost is used by the same executor, and costs nothing extra', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  let losses = 2
  const lossy: Engine = {
    ...engine,
    queue: {
      ...engine.queue,
      async reserve(...asked) {
        const answer = await engine.queue.reserve(...asked)
        losses -= 1
        if (losses >= 0) throw Object.assign(new Error('Connection terminated unexpectedly'), { code: 'ECONNRESET' })
        return answer
      },
    },
  }
  expect(await executeCall(lossy, run.request('one', QUESTION))).toMatchObject({ kind: 'answered' })
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  const codes = await world.db
    .selectFrom('transfer')
    .select('code')
    .where('run_id', '=', run.runId)
    .orderBy('seq')
    .execute()
  expect(codes.map((row) => row.code)).toEqual(['top_up', 'hold', 'capture'])
})

test.each([
  { what: 'ids in the prompt', text: () => Array.from({ length: 60 }, () => newId(Date.now())).join(' '), fault: {} },
  { what: 'Chinese in the prompt', text: () => '船在港口里等待潮水'.repeat(60), fault: {} },
])(
  'streams that are cut again and again never make the provider bill more than was funded ($what)',
  async ({ text }) => {
    const world = await createWorld()
    const engine = await world.startEngine()
    const funded = 6_000_000n
    const run = await world.openRun({ direct: funded })
    await world.sandbox.control('PUT', '/faults/sandbox-steady', { cutStreamAfterChunks: 3 })
    for (let index = 0; index < 100; index += 1) {
      const question = `<passage id="p">${text()} The mill was built in 1711, of stone from the hill, by the miller.</passage> When was the mill built?`
      const result = await executeCall(engine, run.request(`call/${index}`, question, { mayRepeat: 0 }))
      if (result.kind === 'exhausted') break
    }
    const rows = await world.db
      .selectFrom('transfer')
      .select(['amount', 'certainty'])
      .where('code', '=', 'capture')
      .execute()
    const charged = rows.reduce((sum, row) => sum + row.amount, 0n)
    const billed = await billOf(world)
    expect(billed).toBeGreaterThan(0n)
    expect(billed, `billed ${formatNano(billed)}, charged ${formatNano(charged)}`).toBeLessThanOrEqual(charged)
    expect(charged).toBeLessThanOrEqual(funded)
    expect(new Set(rows.map((row) => row.certainty))).toEqual(new Set(['estimated']))
  },
)

test('a run whose refused route has been tried since stays paused: money for it would not help', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000n, credit: 1_000n })
  const ask = () => executeCall(engine, run.request('one', QUESTION, { model: 'research' }))
  expect(await ask()).toMatchObject({ kind: 'exhausted' })
  await topUpEnvelope(world.db, world.scope, {
    envelopeId: run.envelopeId,
    fundings: [{ id: newId(Date.now()), balanceClass: 'credit', currency: 'USD', amount: 100_000_000n }],
  })
  await world.sandbox.control('PUT', '/faults/sandbox-economy', { serverError: true })
  const again = await ask()
  if (again.kind !== 'exhausted') throw new Error(again.kind)
  const { id, limit, currency } = again.refusal
  const stop = { refusalId: id, limit, needed: '0', free: '0', currency }
  expect(await pauseForMoney(world.db, world.scope, { runId: run.runId, stop })).toBe('paused')
  await topUpEnvelope(world.db, world.scope, {
    envelopeId: run.envelopeId,
    fundings: [{ id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 100_000_000n }],
  })
  expect(await pauseForMoney(world.db, world.scope, { runId: run.runId, stop })).toBe('running')
})

test.each([
  { column: 'run_id', value: newId(0), check: 'holds' },
  { column: 'call_id', value: newId(0), check: 'holds' },
  { column: 'attempt', value: 9, check: 'holds' },
  { column: 'certainty', value: 'unknown', check: 'holds' },
  { column: 'currency', value: 'CNY', check: 'tenants' },
  { column: 'released', value: 1, check: 'holds' },
  { column: 'debit_balance', value: 999_999_999n, check: 'never negative' },
])('verify sees a capture whose $column was edited', async ({ column, value, check }) => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await executeCall(engine, run.request('one', QUESTION))
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(`update transfer set ${column} = $1 where code = 'capture'`, [value])
  })
  const { checks } = await verifyLedger(world.db)
  expect(checks.filter((each) => !each.ok).map((each) => each.name)).toContain(check)
})
