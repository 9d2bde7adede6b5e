import type { CallResult } from '#calls/call.ts'
import { executeCall } from '#calls/execute.ts'
import { ceilDivide } from '#domain/money.ts'
import { mayHaveRun } from '#domain/policy.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  choicesOf,
  faultScript,
  LONG_RETRY_MS,
  routesOf,
  type Fault,
  type FaultScript,
  type ScriptRoute,
} from '../support/fault-script.ts'
import { attemptsOf, createFaultWorld, inTurn, reportOf, type BookedAttempt } from '../support/fault-world.ts'
import { reconcileWithBill } from '../support/bill.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { requestsSeen, type TestRun, type World } from '../support/world.ts'

/** Scripts of one world: 500 in all. */
const SCRIPTS = 125
const AT_ONCE = 16
const SEED = Number(process.env['STORM_SEED'] ?? Math.floor(Math.random() * 2 ** 31))

interface Told {
  readonly script: FaultScript
  readonly path: string
  readonly run: TestRun
  readonly result: CallResult
}

const parts = [
  { part: 0, kind: 'openrouter' },
  { part: 1, kind: 'anthropic' },
  { part: 2, kind: 'openrouter' },
  { part: 3, kind: 'openai' },
] as const

test.each(parts)(
  `whatever a provider does, each call ends and the books are right (STORM_SEED=${SEED}, part $part, $kind)`,
  { timeout: 60_000 },
  async ({ part, kind }) => {
    const scripts = fc.sample(faultScript, { seed: SEED + 1_000_003 * part, numRuns: SCRIPTS })
    const world = await createFaultWorld({
      kind,
      models: scripts.map((script, index) => ({ name: `m${index}`, routes: routesOf(script, `m${index}`) })),
    })
    // It knows what it did, and tells it later.
    await world.sandbox.control('PUT', '/generations', { delayMs: 3_600_000 })
    const engine = await world.startEngine()
    const [rich, poor] = [
      await world.openRun({ direct: 100_000_000_000n, credit: 100_000_000_000n }),
      await world.openRun({ direct: 100_000_000_000n, credit: 1n }),
    ]
    const told: Told[] = []
    await inTurn(scripts.entries(), AT_ONCE, async ([index, script]) => {
      const run = script.isPoor ? poor : rich
      const request = run.request(`m${index}`, '', { ...choicesOf(script), model: `m${index}` })
      told.push({ script, path: `m${index}`, run, result: await executeCall(engine, request) })
    })
    const attempts = [...(await attemptsOf(world, rich)), ...(await attemptsOf(world, poor))]
    const byPath = Map.groupBy(attempts, ({ path }) => path)
    const struck = await faultsStruck(world, scripts)
    // What is proven is worth something.
    const certainties = new Set(attempts.map(({ certainty }) => certainty))
    expect(certainties).toEqual(new Set(['billed', 'estimated', 'unknown', null]))
    expect(new Set(attempts.map(({ outcome }) => outcome)).size).toBeGreaterThan(8)
    for (const each of told) expectSound(each, byPath.get(each.path) ?? [], struck)
    expect((await requestsSeen(world.sandbox)).length).toBe(attempts.filter(({ seen }) => seen).length)
    await expectBooks(world, [rich, poor])

    await world.sandbox.control('PUT', '/generations', { delayMs: 0 })
    const runs = [rich, poor]
    await reconcileWithBill(world, engine, { runs, owedOf: (attempt) => reportedOf(attempt, struck) })
    for (const { outcome, certainty, use } of (await Promise.all(runs.map((run) => attemptsOf(world, run)))).flat()) {
      // What an answer truly cost is as useful as it was.
      expect(use).toBe(certainty === null ? null : outcome === 'answered' ? 'useful' : 'wasted')
    }
    await expectBooks(world, [rich, poor])
  },
)

/** What went wrong with each request that the provider saw, by call key and attempt. */
async function faultsStruck(world: World, scripts: readonly FaultScript[]): Promise<ReadonlyMap<string, Struck>> {
  const struck = new Map<string, Struck>()
  for (const [model, requests] of Map.groupBy(await requestsSeen(world.sandbox), (each) => each.model)) {
    const [index, route] = model.slice(1).split('-').map(Number)
    const scripted = scripts[index ?? -1]?.routes[route ?? -1]
    if (!scripted) throw new Error(`no script has ${model}`)
    for (const [turn, { callKey, attempt }] of requests.entries())
      struck.set(`${callKey}:${attempt}`, { fault: scripted.faults[turn] ?? {}, route: scripted })
  }
  return struck
}

interface Struck {
  readonly fault: Fault
  readonly route: ScriptRoute
}

/** Faults that bill more than was asked for. */
const BEYOND = ['promptMultiplier', 'extraCompletionTokens', 'overlongTokens'] as const

const UNSENT: ReadonlySet<string | null> = new Set(['not_sent', 'network_before_send'])

function expectSound(
  { script, path, result }: Told,
  attempts: readonly BookedAttempt[],
  struck: ReadonlyMap<string, Struck>,
): void {
  const story = JSON.stringify(
    { seed: SEED, path, script, result, attempts },
    (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value),
    1,
  )
  const faults = attempts.map((each) => struck.get(`${each.callId}:${each.number}`)?.fault)
  const isPatient = faults.some((fault) => fault?.['retryAfterMs'] === LONG_RETRY_MS)
  expect(['answered', 'failed', 'exhausted', ...(isPatient ? ['waiting'] : [])], story).toContain(result.kind)
  for (const attempt of attempts) {
    expect(attempt.seen === undefined, story).toBe(UNSENT.has(attempt.outcome))
    expect(chargeIsRight(attempt, struck), story).toBe(true)
  }
  expect(attempts.filter(({ seen }) => seen?.begun).length, story).toBeLessThanOrEqual(script.mayRepeat + 1)
  const mayRun = attempts.filter(({ outcome }) => outcome !== null && mayHaveRun(outcome))
  expect(mayRun.length, story).toBeLessThanOrEqual(script.mayRepeat + 1)
}

/** Known usage is paid as it was reported; what is estimated is off by the hold at most, and nothing else was billed. */
function chargeIsRight(attempt: BookedAttempt, struck: ReadonlyMap<string, Struck>): boolean {
  const { certainty, charged, held, billed, seen } = attempt
  if (certainty === 'billed') return charged === reportedOf(attempt, struck)
  const { fault = {} } = struck.get(`${attempt.callId}:${attempt.number}`) ?? {}
  // What is given back too early would be spent again: no estimate is too low, if the bill itself is within bounds.
  if (certainty !== null && charged < billed && !BEYOND.some((name) => name in fault)) return false
  const difference = charged > billed ? charged - billed : billed - charged
  return seen?.begun ? difference <= held : billed === 0n && charged <= held
}

/** What the provider said it bills: it may say one thing and do another. */
function reportedOf({ callId, number, seen, billed }: BookedAttempt, struck: ReadonlyMap<string, Struck>): bigint {
  const { fault, route } = struck.get(`${callId}:${number}`) ?? {}
  const multiplier = fault?.['usageMultiplier']
  if (!seen || !route || typeof multiplier !== 'number') return billed
  const reported = (tokens: number) => BigInt(Math.ceil(tokens * multiplier))
  const { promptTokens, completionTokens } = seen.usage
  return ceilDivide(reported(promptTokens) * route.input + reported(completionTokens) * route.output, 1_000_000n)
}

async function expectBooks(world: World, runs: readonly TestRun[]): Promise<void> {
  for (const run of runs) {
    const { totals } = await reportOf(world, run)
    expect(totals.map(({ held }) => held.amount)).toEqual(totals.map(() => '0.000000'))
  }
  await expectVerified(world)
}
