import {
  createRouteWorld,
  ended,
  forever,
  routeTo,
  takeNow,
  type RouteWorld,
  type TestProcess,
} from '#test/support/routes.ts'
import { pollUntil } from '#test/support/poll.ts'
import type { Route } from '#contracts/catalog.ts'
import { newId } from '#db/ids.ts'
import { resetRoute } from '#db/route-health.ts'
import type { Outcome } from '#domain/policy.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'

const route = routeTo('ill')

async function fail(
  process: TestProcess,
  times: number,
  outcome: Outcome = 'overloaded',
  to: Route = route,
): Promise<void> {
  const tickets = []
  for (let time = 0; time < times; time += 1) tickets.push(await takeNow(process, to))
  for (const ticket of tickets) ticket.done(ended({ outcome, charged: null, message: 'HTTP 503' }))
}

function isOpen({ desk }: TestProcess, to: Route = route): boolean {
  const readiness = desk.readiness(to)
  return !readiness.ready && readiness.why === 'circuit_open'
}

function waitOf({ desk }: TestProcess): number {
  const readiness = desk.readiness(route)
  return readiness.ready ? 0 : readiness.waitMs
}

async function untilOpen(process: TestProcess): Promise<void> {
  await pollUntil(() => isOpen(process), { what: 'the circuit to be open', intervalMs: 5 })
}

/** The time until a probe passes at once. */
async function skipTheWait({ db }: RouteWorld): Promise<void> {
  await sql`update route_state set open_until = clock_timestamp()`.execute(db)
}

/** A process sees what another one has done within its next turn. */
async function untilReady(process: TestProcess): Promise<void> {
  await pollUntil(() => process.desk.readiness(route).ready, { what: 'the route to be ready', intervalMs: 5 })
}

async function stateOf({ db }: RouteWorld) {
  return db.selectFrom('route_state').selectAll().executeTakeFirstOrThrow()
}

test('failures in a row open the circuit for every process, and each says how long', async () => {
  const world = await createRouteWorld()
  const [first, second] = [await world.startProcess(), await world.startProcess()]
  ;(await takeNow(second, route)).done(ended())
  await fail(first, 4)
  expect(isOpen(first)).toBe(false)
  await fail(first, 1)
  await untilOpen(first)
  const refused = await first.desk.take(route, 0, forever)
  expect(refused).toMatchObject({ ok: false, why: 'circuit_open' })
  if (!refused.ok) expect(refused.waitMs).toBeLessThanOrEqual(5_000)
  await pollUntil(async () => !(await second.desk.take(route, 0, forever)).ok, { what: 'the other process to know' })
  expect(await stateOf(world)).toMatchObject({
    failures: 5,
    openings: 1,
    last_outcome: 'overloaded',
    last_message: 'HTTP 503',
  })
  const third = await world.startProcess()
  expect(isOpen(third)).toBe(true)
})

test('failures of several processes are counted together, and an answer anywhere ends the row', async () => {
  const world = await createRouteWorld()
  const processes = [await world.startProcess(), await world.startProcess(), await world.startProcess()]
  const [first, second, third] = processes
  if (!first || !second || !third) throw new Error('three processes')
  await fail(first, 2)
  await fail(second, 2)
  await pollUntil(async () => (await stateOf(world)).failures === 4, { what: 'four failures' })
  await pollUntil(
    async () => {
      ;(await takeNow(third, route)).done(ended())
      return (await stateOf(world)).failures === 0
    },
    { what: 'the answer to be told', intervalMs: 500 },
  )
  await fail(first, 3)
  await fail(second, 2)
  await untilOpen(second)
  await untilOpen(first)
})

test('of all processes exactly one sends the probe, and its answer closes the circuit for all', async () => {
  const world = await createRouteWorld()
  const processes = await Promise.all(Array.from({ length: 4 }, () => world.startProcess()))
  const [first] = processes
  if (!first) throw new Error('a process')
  await fail(first, 5)
  for (const process of processes) {
    await pollUntil(async () => !(await process.desk.take(route, 0, forever)).ok, { what: 'all to know' })
  }
  await skipTheWait(world)
  for (const process of processes) await untilReady(process)
  const takes = await Promise.all(
    processes.flatMap(({ desk }) => Array.from({ length: 8 }, () => desk.take(route, 0, forever))),
  )
  const tickets = takes.flatMap((take) => (take.ok ? [take.ticket] : []))
  expect(tickets).toHaveLength(1)
  for (const { desk } of processes) expect(await desk.take(route, 0, forever)).toMatchObject({ ok: false })
  tickets[0]?.done(ended())
  for (const process of processes) {
    await pollUntil(async () => (await process.desk.take(route, 0, forever)).ok, { what: 'a closed circuit' })
  }
  expect(await stateOf(world)).toMatchObject({ opened_at: null, failures: 0, openings: 0, probe_id: null })
})

test('a probe that fails keeps it open for twice as long; one that says nothing frees the place at once', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  await fail(process, 5)
  await untilOpen(process)
  await skipTheWait(world)
  await untilReady(process)
  ;(await takeNow(process, route)).done(ended({ outcome: 'invalid_request', charged: null }))
  await pollUntil(() => process.desk.readiness(route).ready, { what: 'the place of the probe' })
  ;(await takeNow(process, route)).done(ended({ outcome: null, charged: null }))
  await pollUntil(() => process.desk.readiness(route).ready, { what: 'the place of the probe' })
  ;(await takeNow(process, route)).done(ended({ outcome: 'timeout', charged: null }))
  await pollUntil(async () => (await stateOf(world)).openings === 2, { what: 'the circuit to open again' })
  await untilOpen(process)
  const { opened_at: openedAt, open_until: openUntil } = await stateOf(world)
  expect(openedAt).not.toBeNull()
  await pollUntil(() => waitOf(process) > 8_000, { what: 'the process to know for how long' })
  expect((openUntil?.getTime() ?? 0) - Date.now()).toBeLessThanOrEqual(10_000)
})

test('a probe whose process died is free again', async () => {
  const world = await createRouteWorld()
  const [first, second] = [await world.startProcess(), await world.startProcess()]
  await fail(first, 5)
  await untilOpen(first)
  await skipTheWait(world)
  await untilReady(first)
  await takeNow(first, route)
  expect(await second.desk.take(route, 0, forever)).toMatchObject({ ok: false, why: 'circuit_open' })
  await first.kill()
  await pollUntil(async () => (await second.desk.take(route, 0, forever)).ok, { what: 'the probe of the dead' })
})

test('a late owner of a lost probe changes nothing', async () => {
  const world = await createRouteWorld()
  const [first, second] = [await world.startProcess(), await world.startProcess()]
  await fail(first, 5)
  await untilOpen(first)
  await skipTheWait(world)
  await untilReady(first)
  const late = await takeNow(first, route)
  await sql`update instance set lease_until = clock_timestamp() where id = ${first.instance.id}`.execute(world.db)
  await pollUntil(async () => (await second.desk.take(route, 0, forever)).ok, { what: 'the probe', intervalMs: 5 })
  const { probe_id: probeId } = await stateOf(world)
  late.done(ended())
  await first.desk.stop()
  expect(await stateOf(world)).toMatchObject({ probe_id: probeId, opened_at: expect.any(Date) })
})

test('a refused key opens it at once, for a minute; a rate limit pauses for what was asked, and counts as no failure', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  const [refused, limited] = [routeTo('refused'), routeTo('limited')]
  await fail(process, 1, 'authentication', refused)
  await pollUntil(() => isOpen(process, refused), { what: 'the circuit to be open' })
  const readiness = process.desk.readiness(refused)
  if (!readiness.ready) expect(readiness.waitMs).toBeGreaterThan(55_000)
  for (let time = 0; time < 10; time += 1) {
    ;(await takeNow(process, limited)).done(ended({ outcome: 'rate_limited', charged: null }))
  }
  expect(process.desk.readiness(limited)).toEqual({ ready: true })
  ;(await takeNow(process, limited)).done(ended({ outcome: 'rate_limited', retryAfterMs: 1_500, charged: null }))
  expect(isOpen(process, limited)).toBe(true)
  const other = await world.startProcess()
  await pollUntil(async () => !(await other.desk.take(limited, 0, forever)).ok, { what: 'the other to wait too' })
  await pollUntil(() => !isOpen(process, limited), { what: 'the end of the pause' })
  await takeNow(process, limited)
})

test.each(['invalid_request', 'content_filter', 'context_too_long', 'aborted'] as const)(
  'any number of attempts that end with %s leave the circuit closed',
  async (outcome) => {
    const world = await createRouteWorld()
    const process = await world.startProcess()
    await fail(process, 30, outcome)
    await process.desk.stop()
    expect(await world.db.selectFrom('route_state').selectAll().execute()).toEqual([])
  },
)

test('what was sent before the circuit opened neither closes it nor keeps it open', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  const [early, late] = [await takeNow(process, route), await takeNow(process, route)]
  await fail(process, 5)
  await untilOpen(process)
  const before = await stateOf(world)
  early.done(ended())
  late.done(ended({ outcome: 'timeout', charged: null }))
  await process.desk.stop()
  expect(await stateOf(world)).toMatchObject({
    epoch: before.epoch,
    opened_at: before.opened_at,
    open_until: before.open_until,
  })
})

test('a charge above its hold raises the holds of every process, by the worst that was seen', async () => {
  const world = await createRouteWorld()
  const [first, second] = [await world.startProcess(), await world.startProcess()]
  const ticket = await takeNow(first, route)
  expect([ticket.distrustPpm, first.desk.distrustPpm(route)]).toEqual([0, 0])
  ticket.done(ended({ held: 1_000n, charged: 1_501n }))
  expect(first.desk.distrustPpm(route)).toBe(501_000)
  ;(await takeNow(first, route)).done(ended({ held: 1_501n, charged: 1_501n }))
  ;(await takeNow(first, route)).done(ended({ held: 1_501n, charged: 1_400n }))
  expect(first.desk.distrustPpm(route)).toBe(501_000)
  await pollUntil(
    async () => {
      await takeNow(second, route)
      return second.desk.distrustPpm(route) === 501_000
    },
    { what: 'the other process to know' },
  )
  expect((await takeNow(second, route)).distrustPpm).toBe(501_000)
  // Above a hold that was raised already: counted from the worst case.
  ;(await takeNow(second, route)).done(ended({ held: 1_501n, charged: 3_002n }))
  expect(second.desk.distrustPpm(route)).toBe(2_002_000)
  await second.desk.stop()
  expect(await stateOf(world)).toMatchObject({ distrust_ppm: 2_002_000, distrusted_at: expect.any(Date) })
})

test('many at once that are above their hold by the same do not add up', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  const tickets = []
  for (let index = 0; index < 32; index += 1) tickets.push(await takeNow(process, route))
  for (const each of tickets) each.done(ended({ held: 1_000n, charged: 1_500n }))
  expect(process.desk.distrustPpm(route)).toBe(500_000)
})

test('what could not be written while the database was away is written when it is back', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  const ticket = await takeNow(process, route)
  await sql`alter table route_state rename to route_state_away`.execute(world.owner)
  ticket.done(ended({ held: 1n, charged: 2n }))
  await sql`alter table route_state_away rename to route_state`.execute(world.owner)
  await pollUntil(async () => (await stateOf(world)).distrust_ppm === 1_000_000, { what: 'the distrust to be stored' })
})

test('whatever a provider says, the circuit opens: its message is cut, and what Postgres cannot store is replaced', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  const message = `\0 no \ud800${'x'.repeat(5_000)}`
  ;(await takeNow(process, route)).done(ended({ outcome: 'authentication', charged: null, message }))
  await untilOpen(process)
  expect((await stateOf(world)).last_message).toBe(`\ufffd no \ufffd${'x'.repeat(294)}`)
})

test('a person closes the circuit, and every process sends again', async () => {
  const world = await createRouteWorld()
  const [first, second] = [await world.startProcess(), await world.startProcess()]
  await fail(first, 1, 'quota_gone')
  await untilOpen(first)
  await pollUntil(async () => !(await second.desk.take(route, 0, forever)).ok, { what: 'the other process to know' })
  const organisationId = newId(Date.now())
  await world.db.insertInto('organisation').values({ id: organisationId, name: 'test' }).execute()
  const caller = { keyId: newId(Date.now()), organisationId, projectId: null }
  const reset = { id: newId(Date.now()), provider: route.provider, upstreamModel: route.upstreamModel }
  for (const what of ['circuit', 'distrust'] as const) {
    const isChanged = await world.db.transaction().execute((trx) => resetRoute(trx, caller, { ...reset, what }))
    expect(isChanged).toBe(what === 'circuit')
  }
  for (const process of [first, second]) {
    await pollUntil(() => process.desk.readiness(route).ready, { what: 'the route to be ready' })
    ;(await takeNow(process, route)).done(ended({ outcome: 'timeout', charged: null }))
  }
  expect((await stateOf(world)).opened_at).toBeNull()
})
