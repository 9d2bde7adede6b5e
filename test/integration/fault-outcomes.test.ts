import { executeCall } from '#calls/execute.ts'
import type { CallResult } from '#calls/call.ts'
import type { CatalogRoute } from '#contracts/catalog.ts'
import type { Outcome } from '#domain/policy.ts'
import { expect, test } from 'vitest'
import {
  attemptsOf,
  createFaultWorld,
  inTurn,
  reportOf,
  type BookedAttempt,
  type ScriptedRoute,
} from '../support/fault-world.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { requestsSeen, type TestRun, type World } from '../support/world.ts'

/** What a fault comes to where every route has it, and `mayRepeat` is 1. */
interface Row {
  readonly outcome: Outcome
  /** Requests the provider sees and how the call ends, over one route and over two. */
  readonly alone: string
  readonly both: string
  /** Of each attempt: see `moneyOf`. */
  readonly money: string
  readonly route?: Partial<CatalogRoute>
  /** Longer than this passes between two requests to one route, in milliseconds. */
  readonly waitMs?: number
  readonly ask?: { readonly maxTokens?: number }
}

const ANSWERED = { outcome: 'answered', alone: '1 answered', both: '1 answered' } as const
/** Tried once more, then the next route; nothing can have run. */
const BUSY = { alone: '2 routes_exhausted', both: '4 routes_exhausted', money: 'nothing' } as const
/** Left at once, for the next route. */
const LEFT = { alone: '1 routes_exhausted', both: '2 routes_exhausted', money: 'nothing' } as const
/** The same request would be refused everywhere. */
const OVER = { alone: '1 refused_by_provider', both: '1 refused_by_provider', money: 'nothing' } as const
/** It may have run, and is tried once more: wherever, for `mayRepeat` counts the call. */
const RAN = { alone: '2 repeat_not_allowed', both: '2 repeat_not_allowed' } as const
/** It may have run, and its route is left. */
const RAN_AND_LEFT = { alone: '1 routes_exhausted', both: '2 repeat_not_allowed' } as const

const HUNG = { timeoutMs: 1_500 } as const

const rows: Readonly<Record<string, Row>> = {
  '429': { outcome: 'rate_limited', ...BUSY },
  '429:retry-ms-700': { outcome: 'rate_limited', ...BUSY, waitMs: 700 },
  '429:retry-s-1': { outcome: 'rate_limited', ...BUSY, waitMs: 1_000 },
  '429:retry-date-2': { outcome: 'rate_limited', ...BUSY, waitMs: 900 },
  '429:retry-s-120': { outcome: 'rate_limited', ...LEFT },
  '429:times-1': { ...ANSWERED, alone: '2 answered', both: '2 answered', money: 'nothing, billed exactly' },
  '500': { outcome: 'overloaded', ...BUSY },
  '502': { outcome: 'network_after_send', ...RAN, money: 'the whole hold' },
  '503': { outcome: 'overloaded', ...BUSY },
  '503:retry-ms-700': { outcome: 'overloaded', ...BUSY, waitMs: 700 },
  '529': { outcome: 'overloaded', ...BUSY },
  'slow-60000': { outcome: 'timeout', ...RAN_AND_LEFT, money: 'the whole hold', route: { firstByteTimeoutMs: 1_000 } },
  'slow-300': { ...ANSWERED, money: 'billed exactly', route: { firstByteTimeoutMs: 20_000 } },
  'pace-20': { ...ANSWERED, money: 'billed exactly', route: { firstByteTimeoutMs: 20_000 } },
  hang: { outcome: 'timeout', ...RAN_AND_LEFT, money: 'the whole hold', route: HUNG },
  'hang-headers': { outcome: 'timeout', ...RAN_AND_LEFT, money: 'the whole hold', route: HUNG },
  'hang-3': { outcome: 'timeout', ...RAN_AND_LEFT, money: 'estimated, enough', route: { timeoutMs: 4_000 } },
  'cut-headers': { outcome: 'network_after_send', ...RAN, money: 'the whole hold' },
  'cut-0': { outcome: 'cut_stream', ...RAN, money: 'estimated, enough' },
  'cut-3': { outcome: 'cut_stream', ...RAN, money: 'estimated, enough' },
  'end-0': { outcome: 'cut_stream', ...RAN, money: 'estimated, enough' },
  'end-3': { outcome: 'cut_stream', ...RAN, money: 'estimated, enough' },
  'error-0': { outcome: 'cut_stream', ...RAN, money: 'estimated, enough' },
  'error-3': { outcome: 'cut_stream', ...RAN, money: 'estimated, enough' },
  garbage: { outcome: 'malformed_answer', ...RAN_AND_LEFT, money: 'nothing' },
  'garbage-object': { outcome: 'malformed_answer', ...RAN_AND_LEFT, money: 'nothing' },
  'garbage-sse': { outcome: 'malformed_answer', ...RAN_AND_LEFT, money: 'nothing' },
  empty: { outcome: 'cut_stream', ...RAN, money: 'estimated, enough' },
  filter: { outcome: 'content_filter', ...OVER, money: 'billed exactly' },
  'prompt-filter': { outcome: 'content_filter', ...OVER },
  'no-usage': { ...ANSWERED, money: 'estimated, enough' },
  'usage-negative': { ...ANSWERED, money: 'estimated, enough' },
  'usage-strings': { ...ANSWERED, money: 'estimated, enough' },
  'usage-2': { ...ANSWERED, money: 'billed, not the bill' },
  'prompt-9': { ...ANSWERED, money: 'billed exactly' },
  'extra-70': { ...ANSWERED, money: 'billed exactly' },
  'overlong-40': { ...ANSWERED, money: 'billed exactly', ask: { maxTokens: 8 } },
  '400': { outcome: 'invalid_request', ...OVER },
  '401': { outcome: 'authentication', ...LEFT },
  '402': { outcome: 'quota_gone', ...LEFT },
  quota: { outcome: 'quota_gone', ...LEFT },
  '404': { outcome: 'model_not_found', ...LEFT },
  context: { outcome: 'context_too_long', ...LEFT },
}

/** Where Anthropic's API says less, or more. */
const messagesRows: Readonly<Record<string, Row>> = {
  ...rows,
  // An end without content is a whole answer there.
  empty: { ...ANSWERED, money: 'billed exactly' },
  // It has no code for it.
  'prompt-filter': { outcome: 'invalid_request', ...OVER },
}

/** What an attempt was charged, beside what the provider bills for it. */
function moneyOf({ certainty, charged, held, billed }: BookedAttempt): string {
  switch (certainty) {
    case null:
      return billed === 0n && charged === 0n ? 'nothing' : 'nothing, though it is billed'
    case 'billed':
      return charged === billed ? 'billed exactly' : 'billed, not the bill'
    case 'estimated':
      return charged >= billed && charged <= held ? 'estimated, enough' : 'estimated, too little'
    case 'unknown':
      return charged === held && billed <= held ? 'the whole hold' : 'unknown, not the hold'
  }
}

/** Fewer than what makes a healthy answer slower than the shortest time-out here. */
const AT_ONCE = 8

interface Case {
  readonly path: string
  readonly words: string
  readonly row: Row
  readonly routes: readonly ScriptedRoute[]
}

function casesOf(table: Readonly<Record<string, Row>>): readonly Case[] {
  return Object.entries(table).flatMap(([words, row], index) =>
    ['alone', 'both'].map((path) => {
      const names = path === 'alone' ? ['a'] : ['b', 'c']
      const routes = names.map((name) => ({ model: `${name}${index}`, words, ...(row.route && { route: row.route }) }))
      return { path: `${words} ${path}`, words, row, routes }
    }),
  )
}

function endOf(result: CallResult): string {
  return result.kind === 'failed' ? result.reason : result.kind
}

test.each([
  { kind: 'openai', table: rows },
  { kind: 'anthropic', table: messagesRows },
] as const)(
  'every fault has its outcome, its requests and its charge ($kind)',
  { timeout: 90_000 },
  async ({ kind, table }) => {
    const cases = casesOf(table)
    const world = await createFaultWorld({
      kind,
      models: cases.map(({ path, routes }) => ({ name: nameOf(path), routes })),
    })
    const engine = await world.startEngine()
    const run = await world.openRun({ direct: 1_000_000_000n })
    const ends = new Map<string, string>()
    await inTurn(cases, AT_ONCE, async ({ path, row }) => {
      const body = { messages: [{ role: 'user' as const, content: QUESTION }], maxTokens: row.ask?.maxTokens ?? 200 }
      ends.set(path, endOf(await executeCall(engine, run.request(path, '', { model: nameOf(path), body }))))
    })
    await expectOutcomes(world, run, { cases, ends })
    await expectNothingHeld(world, run)
    await expectVerified(world)
  },
)

function nameOf(path: string): string {
  return path.replace(' ', '/')
}

async function expectOutcomes(
  world: World,
  run: TestRun,
  { cases, ends }: { readonly cases: readonly Case[]; readonly ends: ReadonlyMap<string, string> },
): Promise<void> {
  const attempts = Map.groupBy(await attemptsOf(world, run), ({ path }) => path)
  const actual = cases.map(({ path }) => {
    const own = attempts.get(path) ?? []
    return {
      path,
      outcome: own.at(-1)?.outcome,
      end: `${own.filter(({ seen }) => seen).length} ${ends.get(path)}`,
      money: [...new Set(own.map(moneyOf))].join(', '),
    }
  })
  const expected = cases.map(({ path, row }) => ({
    path,
    outcome: row.outcome,
    end: path.endsWith('alone') ? row.alone : row.both,
    money: row.money,
  }))
  expect(actual).toEqual(expected)
  for (const { path, row } of cases) expectPatience(attempts.get(path) ?? [], row.waitMs ?? 0)
  // Nothing reached the provider that the books do not know.
  expect((await requestsSeen(world.sandbox)).length).toBe([...attempts.values()].flat().length)
}

/** Nobody who was told when to come back comes before that. */
function expectPatience(attempts: readonly BookedAttempt[], waitMs: number): void {
  for (const [index, { route, seen }] of attempts.entries()) {
    const next = attempts[index + 1]
    if (next?.route !== route) continue
    expect(Date.parse(next.seen?.at ?? '') - Date.parse(seen?.at ?? ''), next.path).toBeGreaterThanOrEqual(waitMs)
  }
}

async function expectNothingHeld(world: World, run: TestRun): Promise<void> {
  const { totals } = await reportOf(world, run)
  expect(totals.map(({ held }) => held.amount)).toEqual(['0.000000'])
}
