import type { CallResult } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import type { ChatBody } from '#contracts/chat.ts'
import { executeCall } from '#calls/execute.ts'
import { afterAll, expect, test } from 'vitest'
import { reconcileWithBill } from '../support/bill.ts'
import {
  AFFORDABLE,
  callAll,
  CALLERS,
  factorOf,
  outcomeOf,
  prepareBurst,
  type Burst,
  type Outcome,
} from '../support/burst.ts'
import { startDoomedEngine } from '../support/doomed-engine.ts'
import { attemptsOf, reportOf, type ScriptedRoute } from '../support/fault-world.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { requestsSeen } from '../support/world.ts'

/**
 * 200 callers at once, and money for 20 calls: the rows on which a peer failed. The factor is what the provider bills, by
 * its own books, of the budget; then our books come to equal them.
 */
const BODY: ChatBody = { messages: [{ role: 'user', content: QUESTION }], maxTokens: 200 }
/** Of the upstream, so that many calls are open at once. */
const SLOW = { delayFirstByteMs: 300 } as const

const table: Record<string, string>[] = []
afterAll(() => {
  console.table(table)
})

/** What holds in every row; the provider's bill comes to be ours, to the nano. */
async function expectRow(
  row: string,
  burst: Burst,
  {
    engine,
    results,
    most = burst.budget,
  }: { readonly engine: Engine; readonly results: readonly CallResult[]; readonly most?: bigint },
): Promise<Outcome> {
  const { world, run, budget, hold } = burst
  const before = await outcomeOf(burst, results)
  expect(before.billed, row).toBeLessThanOrEqual(most)
  expect((await reportOf(world, run)).totals.map(({ held }) => held.amount)).toEqual(['0.000000'])
  // Nobody was refused while there was money for his call.
  if (before.exhausted > 0) expect(before.free, row).toBeLessThan(hold)
  await world.sandbox.control('PUT', '/generations', { delayMs: 0 })
  await reconcileWithBill(world, engine, { runs: [run], owedOf: ({ billed }) => billed })
  const after = await outcomeOf(burst, results)
  expect(after.charged, row).toBe(after.billed)
  await expectVerified(world)
  const { answered, exhausted, failed, requests, billed } = after
  const factor = factorOf(billed, budget)
  const own = factorOf(before.charged, budget)
  table.push({
    row,
    factor,
    own,
    answered: `${answered}`,
    refused: `${exhausted}`,
    failed: `${failed}`,
    requests: `${requests}`,
  })
  return after
}

const steady = (): readonly ScriptedRoute[] => [{ model: 'steady', sandbox: SLOW }]

test('one engine, an honest estimate', async () => {
  const burst = await prepareBurst({ body: BODY, routesOf: steady })
  const engine = await burst.world.startEngine()
  const results = await callAll(burst, [engine], { body: BODY })
  const { answered, exhausted, requests } = await expectRow('one engine, honest estimate', burst, { engine, results })
  expect(answered).toBeGreaterThanOrEqual(Number(AFFORDABLE))
  expect(answered + exhausted).toBe(CALLERS)
  expect(requests).toBe(answered)
})

test('a budget of half a call sends nothing', async () => {
  const burst = await prepareBurst({ body: BODY, routesOf: steady, budgetOf: (hold) => hold / 2n })
  const engine = await burst.world.startEngine()
  const results = await callAll(burst, [engine], { body: BODY })
  expect(await expectRow('budget of half a call', burst, { engine, results })).toMatchObject({
    requests: 0,
    exhausted: CALLERS,
  })
})

test('without a limit of the output nobody is refused for good while there is money', async () => {
  const body = { ...BODY, maxTokens: 4_096 }
  const burst = await prepareBurst({ body, routesOf: steady })
  const engine = await burst.world.startEngine()
  const results = await callAll(burst, [engine], { body })
  const { answered } = await expectRow('no max_tokens', burst, { engine, results })
  expect(answered).toBe(CALLERS)
})

const PADDING = 'The harbour was dredged by hand. '.repeat(8)
/** Some 110 tokens, of which the provider makes 1000. */
const MISCOUNTED: ChatBody = { messages: [{ role: 'user', content: `${PADDING}${QUESTION}` }], maxTokens: 200 }
const miscounted = (): readonly ScriptedRoute[] => [
  { model: 'steady', words: 'prompt-9', sandbox: SLOW, route: { tokenizer: 'o200k_base' } },
]

test('a prompt billed at nine times its estimate exceeds only the holds that were out when that was seen', async () => {
  const burst = await prepareBurst({ body: MISCOUNTED, routesOf: miscounted })
  const engine = await burst.world.startEngine()
  const results = await callAll(burst, [engine], { body: MISCOUNTED })
  const dearest = await dearestOf(burst)
  expect(dearest).toBeGreaterThan(burst.hold)
  const row = 'prompt estimated at 110, billed 1000'
  // No hold can bound what a provider counts otherwise: it is 1 + the excess of one call, over its hold.
  await expectRow(row, burst, { engine, results, most: dearest * AFFORDABLE })
})

test('of callers one after another, only the first exceeds his hold', async () => {
  const burst = await prepareBurst({ body: MISCOUNTED, routesOf: miscounted })
  const { world, run, hold, budget } = burst
  await world.sandbox.control('PUT', '/settings/steady', { delayFirstByteMs: 0 })
  const engine = await world.startEngine()
  const results: CallResult[] = []
  while (results.at(-1)?.kind !== 'exhausted' && results.length < CALLERS)
    results.push(await executeCall(engine, run.request(`call/${results.length}`, '', { body: MISCOUNTED })))
  const excesses = (await attemptsOf(world, run)).filter(({ billed, held }) => billed > held)
  expect(excesses.map(({ path }) => path)).toEqual(['call/0'])
  const most = budget + (await dearestOf(burst)) - hold
  await expectRow('the same, one after another', burst, { engine, results, most })
})

async function dearestOf({ world, run }: Burst): Promise<bigint> {
  return (await attemptsOf(world, run)).reduce((most, { billed }) => (billed > most ? billed : most), 0n)
}

/** Little output, so that what is estimated without it is most of a hold, and money ends soon. */
const SHORT: ChatBody = { ...BODY, maxTokens: 40 }

test('streams that are cut half-way, each sent twice', async () => {
  const burst = await prepareBurst({
    body: SHORT,
    isShared: false,
    routesOf: (caller) => [{ model: `cut-${caller}`, words: 'cut-6', sandbox: SLOW }],
  })
  const engine = await burst.world.startEngine()
  const results = await callAll(burst, [engine], { body: SHORT, modelOf: (caller) => `steady-${caller}` })
  const { requests } = await expectRow('upstream cuts the stream half-way', burst, { engine, results })
  expect(requests).toBeGreaterThan(Number(AFFORDABLE))
})

test('an upstream that hangs, three attempts', async () => {
  const hung = { words: 'hang-3', route: { timeoutMs: 1_000 } }
  const burst = await prepareBurst({
    body: SHORT,
    isShared: false,
    routesOf: (caller) => ['a', 'b', 'c'].map((route) => ({ model: `hung-${caller}-${route}`, ...hung })),
  })
  const engine = await burst.world.startEngine()
  const choices = { body: SHORT, mayRepeat: 2, modelOf: (caller: number) => `steady-${caller}` }
  const results = await callAll(burst, [engine], choices)
  const { requests } = await expectRow('upstream hangs, three attempts', burst, { engine, results })
  expect(requests).toBeGreaterThan(Number(AFFORDABLE))
})

test('two engines at once, with nothing in common but the database', async () => {
  const burst = await prepareBurst({ body: BODY, routesOf: steady })
  const engines = [await burst.world.startEngine(), await burst.world.startEngine()] as const
  const results = await callAll(burst, engines, { body: BODY })
  const row = await expectRow('two engines', burst, { engine: engines[0], results })
  expect(row.answered).toBeGreaterThanOrEqual(Number(AFFORDABLE))
})

test('kill -9 in the burst, and the same burst again', async () => {
  const burst = await prepareBurst({ body: BODY, routesOf: steady })
  const { world } = burst
  const paths = Array.from({ length: CALLERS }, (_, caller) => `call/${caller}`)
  const order = { databaseUrl: world.database.appUrl, paths, question: QUESTION, mayRepeat: 1 }
  const doomed = await startDoomedEngine(burst, { ...order, kind: 'openrouter' })
  doomed.begin()
  const stored = () => world.db.selectFrom('call').select('id').where('state', '=', 'answered').execute()
  await pollUntil(async () => (await stored()).length >= 2 * Number(AFFORDABLE), { what: 'a part of the burst' })
  await doomed.kill()
  const before = await stored()
  const engine = await world.startEngine()
  const results = await callAll(burst, [engine], { body: BODY })
  const { answered } = await expectRow('kill -9 in the burst, same burst again', burst, { engine, results })
  expect(answered).toBeGreaterThanOrEqual(before.length)
  const sent = Map.groupBy(await requestsSeen(world.sandbox), ({ callKey }) => callKey)
  expect(before.filter(({ id }) => sent.get(id)?.length !== 1)).toEqual([])
  for (const requests of sent.values()) expect(requests.length).toBeLessThanOrEqual(2)
})
