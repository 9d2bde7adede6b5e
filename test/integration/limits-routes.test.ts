import { executeCall } from '#calls/execute.ts'
import { importCatalog } from '#db/catalog.ts'
import { resumeLimitedRuns } from '#db/limited-run.ts'
import { pauseForMoney } from '#db/run-pause.ts'
import { expect, test } from 'vitest'
import { gatewayCatalog } from '../support/gateway-catalog.ts'
import { createLimitWorld, type LimitWorld } from '../support/limits.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'

/** The worst case of the second route is more than a whole window has. */
const catalog = gatewayCatalog({
  both: [
    { name: 'small', upstreamModel: 'sandbox-steady', maxOutputTokens: 50 },
    { name: 'large', upstreamModel: 'sandbox-busy', maxOutputTokens: 4_000 },
  ],
})

async function stoppedRun() {
  const world = await createLimitWorld()
  await importCatalog(world.db, catalog)
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await world.limit({ measure: 'tokens', currency: null, period: 'week', cap: 200n })
  const body = { messages: [{ role: 'user', content: QUESTION }], maxTokens: 4_000 } as const
  const ask = (path: string) => executeCall(engine, run.request(path, '', { model: 'both', body }))
  expect(await ask('one')).toMatchObject({ kind: 'answered' })
  const stopped = await ask('two')
  if (stopped.kind !== 'exhausted') throw new Error(stopped.kind)
  return { world, run, refusal: stopped.refusal }
}

const pauseFor = (world: LimitWorld, { runId, refusalId }: { readonly runId: string; readonly refusalId: string }) => {
  const stop = { refusalId, limit: 'project limit per week', needed: '182', free: '164', currency: 'tokens' }
  return pauseForMoney(world.db, world.scope, { runId, stop })
}

test('of a call that would fit a whole window on one route, and never on another, the first is told', async () => {
  const { world, refusal } = await stoppedRun()
  expect(refusal).toMatchObject({ route: 'small', limit: 'project limit per week', measure: 'tokens' })
  await expectVerified(world)
})

test('a run goes on at the next window when any route may have room then, whichever was tried last', async () => {
  const { world, run } = await stoppedRun()
  const refusals = await world.db.selectFrom('refusal').selectAll().orderBy('attempt').execute()
  expect(refusals.map(({ asked, cap }) => asked > (cap ?? 0n))).toEqual([false, true])
  const state = async () => world.db.selectFrom('run').select('state').where('id', '=', run.runId).executeTakeFirst()
  for (const { hold_id: refusalId } of refusals) {
    await world.admin.query('update refusal set resets_at = clock_timestamp() + interval $$1 hour$$')
    expect(await pauseFor(world, { runId: run.runId, refusalId })).toBe('paused')
    await resumeLimitedRuns(world.db, Date.now())
    expect(await state()).toEqual({ state: 'paused' })
    await world.admin.query('update refusal set resets_at = clock_timestamp()')
    await resumeLimitedRuns(world.db, Date.now())
    expect(await state()).toEqual({ state: 'running' })
  }
  await expectVerified(world)
})

test('of a limit that is used up and one that no window of has room, the second is told at once', async () => {
  const world = await createLimitWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const body = { messages: [{ role: 'user', content: QUESTION }], maxTokens: 50 } as const
  const ask = (path: string) => executeCall(engine, run.request(path, '', { model: 'steady', body }))
  await world.limit({ measure: 'calls', currency: null, period: 'hour', cap: 1n })
  expect(await ask('one')).toMatchObject({ kind: 'answered' })
  expect(await ask('two')).toMatchObject({ kind: 'waiting', refusal: { measure: 'calls' } })
  await world.limit({ measure: 'tokens', currency: null, period: 'month', cap: 1n })
  expect(await ask('three')).toMatchObject({ kind: 'exhausted', refusal: { limit: 'project limit per month' } })
  await expectVerified(world)
})

test('a route whose circuit is open is no reason to go on: the run pauses, and goes on when that may be tried', async () => {
  const { world, run, refusal } = await stoppedRun()
  const upstream = ['sandbox', 'sandbox-steady']
  await world.admin.query(
    `insert into route_state (provider, upstream_model, epoch, failures, last_outcome, last_failed_at, opened_at,
      open_until, openings) values ($1, $2, 1, 5, 'overloaded', now(), now(), now() + interval '1 hour', 1)
    on conflict (provider, upstream_model) do update set open_until = excluded.open_until`,
    upstream,
  )
  await world.admin.query('update refusal set resets_at = clock_timestamp()')
  expect(await pauseFor(world, { runId: run.runId, refusalId: refusal.id })).toBe('paused')
  const state = async () => world.db.selectFrom('run').select('state').where('id', '=', run.runId).executeTakeFirst()
  await resumeLimitedRuns(world.db, Date.now())
  expect(await state()).toEqual({ state: 'paused' })
  await world.admin.query(
    'update route_state set open_until = now() where provider = $1 and upstream_model = $2',
    upstream,
  )
  await resumeLimitedRuns(world.db, Date.now())
  expect(await state()).toEqual({ state: 'running' })
})
