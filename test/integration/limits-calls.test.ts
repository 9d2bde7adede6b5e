import { executeCall } from '#calls/execute.ts'
import { planSchema } from '#contracts/stored.ts'
import { correct } from '#db/correction.ts'
import { refillLeases } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { setGate } from '#db/ledger.ts'
import { changeLimit, getLimit } from '#db/limit.ts'
import { resumeLimitedRuns } from '#db/limited-run.ts'
import { readReport } from '#db/report.ts'
import { pauseForMoney } from '#db/run-pause.ts'
import { expect, test } from 'vitest'
import { createLimitWorld, type LimitWorld } from '#test/support/limits.ts'
import { truthOf } from '../support/late-truth.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { requestsSeen } from '../support/world.ts'

const operator = (world: LimitWorld) => ({
  keyId: newId(Date.now()),
  organisationId: world.organisationId,
  projectId: null,
})

test('a call that a limit stops says which, its report proves it, and a raised cap lets it go on', async () => {
  const world = await createLimitWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const change = {
    scope: 'run',
    subjectId: run.runId,
    measure: 'calls',
    currency: null,
    period: 'life',
    cap: 1n,
  } as const
  const limitId = await world.limit(change)
  expect(await executeCall(engine, run.request('one', QUESTION))).toMatchObject({ kind: 'answered' })
  const stopped = await executeCall(engine, run.request('two', QUESTION))
  expect(stopped).toMatchObject({
    kind: 'exhausted',
    refusal: { limit: 'run limit', measure: 'calls', needed: 1n, free: 0n },
  })
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.calls[1]?.attempts).toMatchObject([
    {
      kind: 'refusal',
      free: null,
      bound: { by: 'limit', limitId, measure: 'calls', cap: '1', spent: '1', needed: '1' },
    },
  ])
  if (stopped.kind !== 'exhausted') throw new Error('it was not stopped')
  const { id, limit } = stopped.refusal
  const stop = { refusalId: id, limit, needed: '1', free: '0', currency: 'calls' }
  await changeLimit(world.db, operator(world), { limitId, cap: 2n })
  expect(await pauseForMoney(world.db, world.scope, { runId: run.runId, stop })).toBe('running')
  expect(await executeCall(engine, run.request('two', QUESTION))).toMatchObject({ kind: 'answered' })
  await expectVerified(world)
})

test('a call that a short window stops waits for the next one, unless it would not fit there either', async () => {
  const world = await createLimitWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const limitId = await world.limit({ measure: 'calls', currency: null, period: 'hour', cap: 1n })
  expect(await executeCall(engine, run.request('one', QUESTION))).toMatchObject({ kind: 'answered' })
  const result = await executeCall(engine, run.request('two', QUESTION))
  const limit = await getLimit(world.db, operator(world), limitId)
  if (result.kind !== 'waiting') throw new Error(`it was ${result.kind}`)
  expect(Math.abs(result.untilMs - (limit?.endsAt?.getTime() ?? 0))).toBeLessThan(5_000)
  await changeLimit(world.db, operator(world), { limitId, cap: 9n })
  await world.limit({ measure: 'tokens', currency: null, period: 'hour', cap: 1n })
  expect(await executeCall(engine, run.request('three', QUESTION))).toMatchObject({ kind: 'exhausted' })
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  await expectVerified(world)
})

test('calls of many runs count the tokens and the money that the provider billed, and not more', async () => {
  const world = await createLimitWorld()
  const engine = await world.startEngine()
  const wide = { scope: 'organisation', subjectId: world.organisationId, period: 'month' } as const
  const money = await world.limit({ ...wide, cap: 1_000_000_000_000n })
  const tokens = await world.limit({ ...wide, measure: 'tokens', currency: null, cap: 1_000_000n })
  const calls = await world.limit({ ...wide, measure: 'calls', currency: null, cap: 12n })
  const runs = await Promise.all([1, 2, 3].map(() => world.openRun({ direct: 1_000_000_000n })))
  const results = await Promise.all(
    runs.flatMap((run) => [1, 2, 3, 4, 5].map((index) => executeCall(engine, run.request(`c${index}`, QUESTION)))),
  )
  const kinds = results.map(({ kind }) => kind).toSorted()
  expect(kinds).toEqual([...Array.from({ length: 12 }, () => 'answered'), 'exhausted', 'exhausted', 'exhausted'])
  const attempts = await world.db.selectFrom('attempt').select(['usage', 'tokens_used']).execute()
  const billed = await world.db.selectFrom('transfer').select('amount').where('code', '=', 'capture').execute()
  const spent = async (limitId: string) => (await getLimit(world.db, operator(world), limitId))?.spent
  const sum = (values: readonly bigint[]) => values.reduce((total, value) => total + value, 0n)
  expect(await spent(calls)).toBe(12n)
  expect(await spent(money)).toBe(sum(billed.map(({ amount }) => amount)))
  expect(await spent(tokens)).toBe(sum(attempts.map((attempt) => attempt.tokens_used ?? -1n)))
  expect(await requestsSeen(world.sandbox)).toHaveLength(12)
  await expectVerified(world)
})

test('many who ask for one hold that a limit refuses write one refusal, and a closed gate is said first', async () => {
  const world = await createLimitWorld()
  await world.limit({ cap: 5n })
  const envelope = await world.openEnvelope()
  const refused = await envelope.hold({ amount: 6n })
  const pocket = { projectId: world.scope.projectId, accountId: envelope.accountId }
  const call = await envelope.hold({ amount: 5n })
  const next = { ...call.item, callId: refused.item.callId, attempt: 2, holdId: newId(Date.now()), amount: 7n }
  const answers = await Promise.all(Array.from({ length: 8 }, () => refillLeases(world.db, pocket, next)))
  expect(new Set(answers)).toEqual(new Set(['exhausted']))
  expect(await world.db.selectFrom('refusal').selectAll().execute()).toHaveLength(2)
  expect(await refillLeases(world.db, pocket, call.item)).toBe('again')
  expect(await refillLeases(world.db, { ...pocket, projectId: newId(Date.now()) }, next)).toBe('again')
  await setGate(world.db, world.scope, { envelopeId: envelope.id, gate: 'frozen', reason: 'test' })
  expect(await refillLeases(world.db, pocket, { ...next, holdId: newId(Date.now()), attempt: 3 })).toBe('frozen')
  await expectVerified(world)
})

test('a run that a limit paused goes on once the cap is raised, told once however many look', async () => {
  const world = await createLimitWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const limitId = await world.limit({ measure: 'calls', currency: null, period: 'life', cap: 0n })
  const stopped = await executeCall(engine, run.request('one', QUESTION))
  if (stopped.kind !== 'exhausted') throw new Error(stopped.kind)
  const { id, limit } = stopped.refusal
  const stop = { refusalId: id, limit, needed: '1', free: '0', currency: 'calls' }
  expect(await pauseForMoney(world.db, world.scope, { runId: run.runId, stop })).toBe('paused')
  expect(await resumeLimitedRuns(world.db, Date.now())).toBe(0)
  await changeLimit(world.db, operator(world), { limitId, cap: 1n })
  const resumed = await Promise.all(Array.from({ length: 4 }, () => resumeLimitedRuns(world.db, Date.now())))
  // The engine's own housekeeping may have been first.
  expect(resumed.reduce((sum, each) => sum + each, 0)).toBeLessThanOrEqual(1)
  const row = await world.db.selectFrom('run').select('state').where('id', '=', run.runId).executeTakeFirstOrThrow()
  expect(row.state).toBe('running')
  const commands = await world.db.selectFrom('command').select('kind').where('run_id', '=', run.runId).execute()
  expect(commands).toEqual([{ kind: 'resume' }])
  expect(await executeCall(engine, run.request('one', QUESTION))).toMatchObject({ kind: 'answered' })
  await expectVerified(world)
})

test('a run whose call would not fit into a whole window stays paused at the next one, until the cap is raised', async () => {
  const world = await createLimitWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const limitId = await world.limit({ measure: 'calls', currency: null, period: 'hour', cap: 0n })
  const stopped = await executeCall(engine, run.request('one', QUESTION))
  if (stopped.kind !== 'exhausted') throw new Error(stopped.kind)
  const { id, limit } = stopped.refusal
  const stop = { refusalId: id, limit, needed: '1', free: '0', currency: 'calls' }
  await world.admin.query('update refusal set resets_at = clock_timestamp()')
  expect(await pauseForMoney(world.db, world.scope, { runId: run.runId, stop })).toBe('paused')
  expect(await resumeLimitedRuns(world.db, Date.now())).toBe(0)
  const state = async () => world.db.selectFrom('run').select('state').where('id', '=', run.runId).executeTakeFirst()
  expect(await state()).toEqual({ state: 'paused' })
  await changeLimit(world.db, operator(world), { limitId, cap: 1n })
  await resumeLimitedRuns(world.db, Date.now())
  expect(await state()).toEqual({ state: 'running' })
  await expectVerified(world)
})

test('a limit on calls counts a call that late truth says was made, and gives one back that was not', async () => {
  const world = await createLimitWorld()
  await world.limit({ measure: 'calls', currency: null, cap: 1n, period: 'day' })
  const envelope = await world.openEnvelope()
  const pocket = { projectId: world.scope.projectId, accountId: envelope.accountId }
  const voided = await envelope.hold()
  await envelope.settle(voided, { amount: null })
  expect(await correct(world.db, pocket, truthOf(voided.item, 10n))).toBe('corrected')
  await expectVerified(world)
  expect((await envelope.hold()).verdict).toBe('exhausted')
  expect(await correct(world.db, pocket, truthOf(voided.item, 12n))).toBe('corrected')
  await expectVerified(world)
  expect(await correct(world.db, pocket, truthOf(voided.item, 0n))).toBe('corrected')
  await expectVerified(world)
  const made = await envelope.hold()
  expect(made.verdict).toBe('granted')
  await envelope.settle(made, { amount: 5n })
  expect(await correct(world.db, pocket, truthOf(made.item, 0n))).toBe('corrected')
  await expectVerified(world)
  expect((await envelope.hold()).verdict).toBe('granted')
})

test('a call that may be cut fits into what each limit that binds it leaves, of money and of tokens', async () => {
  const world = await createLimitWorld()
  const engine = await world.startEngine()
  const tight = { policy: 'clamp', floorTokens: 16, parallelism: 2 } as const
  const body = { messages: [{ role: 'user' as const, content: QUESTION }], maxTokens: 4_000 }
  const planned = async (path: string) => {
    const run = await world.openRun({ direct: 1_000_000_000n })
    expect(await executeCall(engine, run.request(path, '', { body, tight }))).toMatchObject({ kind: 'answered' })
    const attempt = await world.db
      .selectFrom('attempt')
      .innerJoin('call', 'call.id', 'attempt.call_id')
      .innerJoin('transfer', 'transfer.id', 'attempt.hold_id')
      .select(['attempt.plan', 'transfer.amount'])
      .where('call.path', '=', path)
      .executeTakeFirstOrThrow()
    return { ...planSchema.parse(attempt.plan), held: attempt.amount }
  }
  expect(await planned('free')).toMatchObject({ maxOutputTokens: 4_000 })
  await world.limit({ measure: 'tokens', currency: null, period: 'life', cap: 2_000n })
  const { inputTokenBound, maxOutputTokens } = await planned('tokens')
  expect(inputTokenBound + maxOutputTokens).toBe(1_000)
  await world.limit({ period: 'life', cap: 400_000n })
  const { held } = await planned('money')
  expect(held).toBeLessThanOrEqual(200_000n)
  expect(held).toBeGreaterThan(200_000n - 1_600n)
  await expectVerified(world)
})
