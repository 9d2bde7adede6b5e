import type { Route } from '#contracts/catalog.ts'
import {
  commitsOf,
  createRouteWorld,
  ended,
  forever,
  routeTo,
  takeNow,
  takePatiently,
  type RouteWorld,
  type TestProcess,
} from '#test/support/routes.ts'
import { pollUntil } from '#test/support/poll.ts'
import fc from 'fast-check'
import { sql } from 'kysely'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'

const WINDOW_SECONDS = 2

interface Used {
  readonly atMs: number
  readonly endMs: number
  readonly tokens: number
}

/** The most that any window of the log has. */
function mostInAWindow(log: readonly Used[], sizeOf: (used: Used) => number): number {
  return Math.max(
    0,
    ...log.map(({ atMs }) =>
      log
        .filter((each) => each.atMs >= atMs && each.atMs < atMs + WINDOW_SECONDS * 1_000)
        .reduce((sum, each) => sum + sizeOf(each), 0),
    ),
  )
}

function mostAtOnce(log: readonly Used[]): number {
  return Math.max(0, ...log.map(({ atMs }) => log.filter((each) => each.atMs <= atMs && each.endMs > atMs).length))
}

/** Callers of one process, each making calls of some length until the deadline. */
async function callers(
  process: TestProcess,
  route: Route,
  work: {
    readonly callers: number
    readonly tokens: () => number
    readonly lastsMs: () => number
    readonly untilMs: number
  },
): Promise<readonly Used[]> {
  const log: Used[] = []
  const caller = async () => {
    while (performance.now() < work.untilMs) {
      const tokens = work.tokens()
      const ticket = await takePatiently(process, route, { tokens, untilMs: work.untilMs })
      if (!ticket) return
      const atMs = performance.now()
      await delay(work.lastsMs())
      const used = log.length % 3 === 0 ? Math.floor(tokens / 2) : tokens
      log.push({ atMs, endMs: performance.now(), tokens: used })
      ticket.done(ended({ tokens: used }))
    }
  }
  await Promise.all(Array.from({ length: work.callers }, caller))
  return log
}

/** What several processes took of a route whose limits are too tight for them. */
async function storm(
  world: RouteWorld,
  route: Route,
  load: { readonly callers: readonly number[]; readonly tokens: () => number; readonly lastsMs: () => number },
): Promise<readonly Used[]> {
  const running = await Promise.all(load.callers.map(() => world.startProcess()))
  const untilMs = performance.now() + 3_500
  const logs = await Promise.all(
    running.map((process, index) => callers(process, route, { ...load, callers: load.callers[index] ?? 1, untilMs })),
  )
  await Promise.all(running.map(({ desk }) => desk.stop()))
  return logs.flat()
}

test.each<[string, Route['limits'], (log: readonly Used[]) => number]>([
  ['requests', { requestsPerMinute: 40 }, (log) => mostInAWindow(log, () => 1)],
  ['tokens', { tokensPerMinute: 2_000 }, (log) => mostInAWindow(log, ({ tokens }) => tokens)],
  ['concurrency', { concurrency: 5 }, mostAtOnce],
])('three processes with eight callers each use a limit of %s up, and never exceed it', async (_, limits, mostOf) => {
  const world = await createRouteWorld({ windowSeconds: WINDOW_SECONDS })
  const route = routeTo('storm', limits)
  const log = await storm(world, route, { callers: [8, 8, 8], tokens: () => 50, lastsMs: () => 20 })
  const [limit = 0] = Object.values(limits)
  expect(mostOf(log)).toBeLessThanOrEqual(limit)
  expect(mostOf(log)).toBeGreaterThanOrEqual(limit * 0.75)
})

test('whatever the limits and the load, none is exceeded, in any window and at any time', async () => {
  const world = await createRouteWorld({ windowSeconds: WINDOW_SECONDS, leaseMs: 1_500 })
  let round = 0
  await fc.assert(
    fc.asyncProperty(
      fc.record(
        {
          requestsPerMinute: fc.integer({ min: 1, max: 60 }),
          tokensPerMinute: fc.integer({ min: 100, max: 2_000 }),
          concurrency: fc.integer({ min: 1, max: 12 }),
        },
        { requiredKeys: [] },
      ),
      fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 1, maxLength: 4 }),
      fc.infiniteStream(fc.integer({ min: 0, max: 100 })),
      async (limits, callerCounts, numbers) => {
        round += 1
        const next = () => numbers.next().value ?? 0
        const log = await storm(world, routeTo(`limited-${round}`, limits), {
          callers: callerCounts,
          tokens: next,
          lastsMs: () => 5 + next(),
        })
        expect(mostInAWindow(log, () => 1)).toBeLessThanOrEqual(limits.requestsPerMinute ?? Infinity)
        expect(mostInAWindow(log, ({ tokens }) => tokens)).toBeLessThanOrEqual(limits.tokensPerMinute ?? Infinity)
        expect(mostAtOnce(log)).toBeLessThanOrEqual(limits.concurrency ?? Infinity)
        expect(log.length).toBeGreaterThan(0)
      },
    ),
    { numRuns: 3, endOnFailure: true },
  )
}, 60_000)

test('a limit is used up: what one process does not need another has', async () => {
  const world = await createRouteWorld()
  const [first, second] = [await world.startProcess(), await world.startProcess()]
  const route = routeTo('ten', { requestsPerMinute: 10 })
  ;(await takeNow(first, route)).done(ended())
  const untilMs = performance.now() + 8_000
  for (let index = 0; index < 9; index += 1) {
    const ticket = await takePatiently(second, route, { untilMs })
    expect(ticket).toBeDefined()
    ticket?.done(ended())
  }
  const eleventh = await second.desk.take(route, 0, forever)
  expect(eleventh).toMatchObject({ ok: false, why: 'route_limit' })
  if (!eleventh.ok) expect(eleventh.waitMs).toBeGreaterThan(30_000)
  expect(second.desk.readiness(route)).toMatchObject({ ready: false, why: 'route_limit' })
})

test('what a window bears comes back as it passes', async () => {
  const world = await createRouteWorld({ windowSeconds: 1 })
  const process = await world.startProcess()
  const route = routeTo('one', { requestsPerMinute: 1 })
  for (let index = 0; index < 3; index += 1) {
    const ticket = await takePatiently(process, route, { untilMs: performance.now() + 5_000 })
    expect(ticket).toBeDefined()
    ticket?.done(ended())
  }
})

test('tokens are taken at their worst case, and what was not used comes back', async () => {
  const world = await createRouteWorld()
  const [first, second] = [await world.startProcess(), await world.startProcess()]
  const route = routeTo('tokens', { tokensPerMinute: 1_000 })
  const ticket = await takeNow(first, route, 900)
  expect(await second.desk.take(route, 200, forever)).toMatchObject({ ok: false, why: 'route_limit' })
  ticket.done(ended({ tokens: 100 }))
  const other = await takePatiently(second, route, { tokens: 900, untilMs: performance.now() + 8_000 })
  expect(other).toBeDefined()
  expect(await first.desk.take(route, 1, forever)).toMatchObject({ ok: false })
  other?.done(ended({ outcome: null }))
  expect(await takePatiently(first, route, { tokens: 900, untilMs: performance.now() + 8_000 })).toBeDefined()
})

test('more than the limit ever gives is refused at once, and keeps nobody waiting', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  const route = routeTo('small', { tokensPerMinute: 1_000 })
  expect(await process.desk.take(route, 1_001, forever)).toEqual({ ok: false, why: 'route_limit', waitMs: 3_600_000 })
  await takeNow(process, route, 1_000)
})

test('concurrent slots of a process that died come back when its lease ends, and not before', async () => {
  const world = await createRouteWorld()
  const [first, second] = [await world.startProcess(), await world.startProcess()]
  const route = routeTo('two', { concurrency: 2 })
  await takeNow(first, route)
  await takeNow(first, route)
  expect(await second.desk.take(route, 0, forever)).toMatchObject({ ok: false, why: 'route_limit' })
  await first.kill()
  await pollUntil(async () => (await second.desk.take(route, 0, forever)).ok, { what: 'a slot of the dead' })
  await pollUntil(async () => (await second.desk.take(route, 0, forever)).ok, { what: 'the other slot' })
  expect(await second.desk.take(route, 0, forever)).toMatchObject({ ok: false })
})

test('what a process that died had leased counts as used until a window after', async () => {
  const world = await createRouteWorld({ windowSeconds: WINDOW_SECONDS, leaseMs: 300 })
  const [first, second] = [await world.startProcess(), await world.startProcess()]
  const route = routeTo('lease', { requestsPerMinute: 40 })
  await takeNow(first, route)
  const { rows } = await sql<{ requests: string }>`select requests::text as requests from route_lease`.execute(world.db)
  const leased = Number(rows[0]?.requests)
  expect(leased).toBeGreaterThan(1)
  // It may have sent all of them, and told of none.
  const atMs = performance.now()
  const ofTheDead = Array.from({ length: leased }, () => ({ atMs, endMs: atMs, tokens: 0 }))
  await first.kill()
  const untilMs = performance.now() + 5_000
  const ofTheLiving = await callers(second, route, { callers: 8, tokens: () => 0, lastsMs: () => 1, untilMs })
  expect(mostInAWindow([...ofTheDead, ...ofTheLiving], () => 1)).toBeLessThanOrEqual(40)
  expect(ofTheLiving.length).toBeGreaterThan(40)
})

test('nobody starves: processes that want more than there is all get some', async () => {
  const world = await createRouteWorld({ windowSeconds: 1 })
  const processes = await Promise.all([world.startProcess(), world.startProcess(), world.startProcess()])
  const route = routeTo('scarce', { requestsPerMinute: 6 })
  const untilMs = performance.now() + 9_000
  const logs = await Promise.all(
    processes.map((process, index) =>
      callers(process, route, { callers: [20, 5, 1][index] ?? 1, tokens: () => 0, lastsMs: () => 1, untilMs }),
    ),
  )
  const counts = logs.map((log) => log.length)
  expect(Math.min(...counts)).toBeGreaterThan(0)
  expect(counts.reduce((sum, count) => sum + count)).toBeGreaterThan(12)
})

test('a route without limits, and one with room enough, cost calls no commits of their own', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  for (const route of [
    routeTo('free'),
    routeTo('roomy', { requestsPerMinute: 100_000, tokensPerMinute: 10_000_000, concurrency: 50 }),
  ]) {
    const before = await commitsOf(world)
    const startMs = performance.now()
    for (let call = 0; call < 400; call += 1) {
      const ticket = await takeNow(process, route, 1_000)
      await delay(1)
      ticket.done(ended({ tokens: 500 }))
    }
    const seconds = (performance.now() - startMs) / 1_000
    // The renewal of the instance's lease and our own turn, each once a second, and the growth of the lease at first.
    expect((await commitsOf(world)) - before).toBeLessThan(2 * seconds + 22)
  }
})

test('an idle process asks nothing, and has given back all it had', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  const route = routeTo('idle', { requestsPerMinute: 1_000, concurrency: 10 })
  for (let call = 0; call < 20; call += 1) (await takeNow(process, route)).done(ended())
  await pollUntil(async () => (await sql`select from route_lease`.execute(world.db)).rows.length === 0, {
    what: 'the lease given back',
  })
  const { rows } = await sql<{ requests: string }>`select sum(requests)::text as requests from route_use`.execute(
    world.db,
  )
  expect(rows).toEqual([{ requests: '20' }])
})

test('while the database is away a limit lets nothing through, and what may have been lent counts as used', async () => {
  const world = await createRouteWorld()
  const process = await world.startProcess()
  const route = routeTo('away', { requestsPerMinute: 10 })
  await takeNow(process, route)
  await process.db.destroy()
  const takes = await Promise.allSettled(Array.from({ length: 20 }, () => process.desk.take(route, 0, forever)))
  const granted = takes.filter((take) => take.status === 'fulfilled' && take.value.ok)
  expect(granted.length).toBeLessThanOrEqual(9)
  expect(takes.some((take) => take.status === 'rejected')).toBe(true)
})
