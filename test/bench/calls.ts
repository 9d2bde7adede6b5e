import { startEngine, type RunningEngine } from '#calls/start-engine.ts'
import { connectDatabase } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import { createOpenAiCompatible } from '#providers/openai-compatible.ts'
import { startProcess } from '#local/child-process.ts'
import { sql, type Kysely } from 'kysely'
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { z } from 'zod'
import { makeScratchFolder } from '../support/scratch-folder.ts'
import { bareClient, freshPrompts, oursOn, UPSTREAM_MODEL, type ProviderPlace } from './calls-load.ts'
import { percentile, rowOf, type Bench, type BenchOptions, type Row } from './frame.ts'
import { createTenant, ROUTE, withEnvelopes, type Tenant } from './ledger-tenant.ts'
import { press, pressCount, type Contender, type Measured } from './load.ts'
import { verifyClean, withServer, type BenchDatabase } from './postgres.ts'

interface Case {
  readonly name: string
  readonly bytes: number
  readonly callers: number
  /** Least share of the bare client's calls a second. */
  readonly atLeast?: number
}

const SANDBOX = fileURLToPath(new URL('../../src/sandbox/main.ts', import.meta.url))
const KB = 1_024
const CASES: readonly Case[] = [
  { name: '1 KB, 1 caller', bytes: KB, callers: 1 },
  { name: '1 KB, 32 callers', bytes: KB, callers: 32, atLeast: 0.4 },
  { name: '16 KB, 1 caller', bytes: 16 * KB, callers: 1 },
  { name: '16 KB, 32 callers', bytes: 16 * KB, callers: 32 },
  { name: '1 KB, 256 callers', bytes: KB, callers: 256 },
]
const CONNECTIONS = 16
const ENVELOPES = 256
const REPETITIONS = 7
const MEASURE_MS = 2_000
const LEAD_IN_MS = 300
/** A call is to cost two commits and this much more, in milliseconds. */
const ALLOWED_MS = 2
const COMMITS = 200
const MEMORY_CALLERS = 32

export const callsBench: Bench = {
  name: 'calls',
  says: 'whole calls through the engine, beside the bare client, with their commits and memory',
  run: (options) =>
    withServer(options, async (server) => {
      const database = await server.create('bench')
      const provider = await startProvider()
      try {
        const rows = await runOn(database, provider, options)
        options.say('verifying')
        await verifyClean(database)
        return rows
      } finally {
        await provider.stop()
      }
    }),
}

/** The provider in a process of its own, as it is everywhere, without a log of its requests on disk. */
async function startProvider() {
  const folder = await makeScratchFolder('bench-provider')
  const apiKey = randomBytes(12).toString('hex')
  const running = await startProcess({
    name: 'sandbox',
    entry: SANDBOX,
    env: { ...process.env, SANDBOX_KEY: apiKey },
    logFile: join(folder, 'sandbox.log'),
  })
  const { url } = z.object({ url: z.string() }).parse(running.ready)
  return {
    url,
    apiKey,
    async stop() {
      await running.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

async function runOn(database: BenchDatabase, place: ProviderPlace, options: BenchOptions): Promise<readonly Row[]> {
  const model = { upstreamModel: UPSTREAM_MODEL, tokenizer: 'o200k_base' as const }
  const tenant = await withEnvelopes(database, await createTenant(database, model), ENVELOPES)
  const db = connectDatabase({ url: database.appUrl, maxConnections: CONNECTIONS })
  const provider = createOpenAiCompatible({
    name: ROUTE.provider,
    baseUrl: place.url,
    apiKey: place.apiKey,
    nowMs: () => Date.now(),
  })
  const engine = await startEngine({ db, databaseUrl: database.appUrl, kind: 'test', providers: [provider] })
  try {
    const rows: Row[] = []
    for (const each of CASES) rows.push(...(await measureCase(each, { engine, tenant, place, db, options })))
    rows.push(await commitsRow({ engine, tenant, db, options }))
    rows.push(await memoryRow({ engine, tenant, options }))
    return rows
  } finally {
    await engine.stop()
    await db.destroy()
  }
}

interface Setting {
  readonly engine: RunningEngine
  readonly tenant: Tenant
  readonly db: Kysely<Database>
  readonly options: BenchOptions
}

async function measureCase(each: Case, setting: Setting & { readonly place: ProviderPlace }): Promise<readonly Row[]> {
  const { engine, tenant, place, db, options } = setting
  const prompts = freshPrompts(each.bytes)
  const ours = oursOn(engine, tenant, prompts)
  const bare = bareClient(place, prompts)
  const load = { callers: each.callers, leadInMs: LEAD_IN_MS, measureMs: MEASURE_MS }
  const found: { ours: Measured; bare: Measured; commitMs: number }[] = []
  for (let turn = 0; turn < (options.size === 'quick' ? 1 : REPETITIONS); turn += 1) {
    const order = turn % 2 === 0 ? [ours, bare] : [bare, ours]
    const slices = new Map<Contender, Measured>()
    for (const contender of order) slices.set(contender, await press(contender, load))
    const [mine, theirs] = [slices.get(ours), slices.get(bare)]
    if (mine && theirs)
      found.push({ ours: mine, bare: theirs, commitMs: each.callers === 1 ? await commitMs(db, tenant) : 0 })
  }
  const perSecond = found.map((slice) => `${Math.round(slice.ours.perSecond)}:${Math.round(slice.bare.perSecond)}`)
  options.say(`${each.name}: ours to bare ${perSecond.join(' ')}`)
  return rowsOf(each, found)
}

function rowsOf(
  each: Case,
  found: readonly { readonly ours: Measured; readonly bare: Measured; readonly commitMs: number }[],
): readonly Row[] {
  const pick = (read: (slice: Measured) => number) => ({
    case: each.name,
    ours: found.map((slice) => read(slice.ours)),
    baseline: found.map((slice) => read(slice.bare)),
  })
  const target = each.atLeast === undefined ? {} : { target: { bound: 'at least', value: each.atLeast } as const }
  const rows = [
    rowOf({ ...pick((slice) => slice.perSecond), metric: 'calls a second, ours : bare', ...target }),
    rowOf({ ...pick((slice) => slice.p50Ms), metric: 'p50 in ms, ours : bare' }),
    rowOf({ ...pick((slice) => slice.p99Ms), metric: 'p99 in ms, ours : bare' }),
  ]
  if (each.callers > 1) return rows
  const added = rowOf({
    case: each.name,
    metric: `added p50 in ms : two commits and ${ALLOWED_MS} ms`,
    ours: found.map((slice) => slice.ours.p50Ms - slice.bare.p50Ms),
    baseline: found.map((slice) => 2 * slice.commitMs + ALLOWED_MS),
    ...(each.bytes === KB && { target: { bound: 'at most', value: 1 } as const }),
  })
  return [...rows, added]
}

/** What the smallest commit takes here and now: one row into a table. */
async function commitMs(db: Kysely<Database>, { scope }: Tenant): Promise<number> {
  const times: number[] = []
  for (let index = 0; index < COMMITS; index += 1) {
    const beganMs = performance.now()
    await sql`insert into idempotency (scope, key, digest, status, body)
      values (${scope.projectId}, ${`${Date.now()}-${index}`}, '', 200, 'null')`.execute(db)
    times.push(performance.now() - beganMs)
  }
  return percentile(times, 0.5)
}

/** Commits of the database for each call at one caller, those of the background included. */
async function commitsRow({ engine, tenant, db, options }: Setting): Promise<Row> {
  const calls = options.size === 'quick' ? 200 : 2_000
  const ours = oursOn(engine, tenant, freshPrompts(KB))
  const found: number[] = []
  for (let turn = 0; turn < (options.size === 'quick' ? 1 : 3); turn += 1) {
    const before = await settledCommits(db)
    await pressCount(ours, { callers: 1, operations: calls })
    found.push(((await settledCommits(db)) - before) / calls)
  }
  return rowOf({
    case: '1 KB, 1 caller',
    metric: 'commits a call',
    ours: found,
    target: { bound: 'at most', value: 2.1 },
  })
}

/** Connections tell their counts about once a second, and when asked to. */
async function settledCommits(db: Kysely<Database>): Promise<number> {
  await delay(2_500)
  const { rows } = await sql<{ commits: string }>`
    select xact_commit::text as commits from pg_stat_database where datname = current_database()`.execute(db)
  return Number(rows[0]?.commits)
}

async function memoryRow({ engine, tenant, options }: Omit<Setting, 'db'>): Promise<Row> {
  const [few, many] = options.size === 'quick' ? [500, 1_000] : [10_000, 100_000]
  const ours = oursOn(engine, tenant, freshPrompts(KB))
  await pressCount(ours, { callers: MEMORY_CALLERS, operations: few })
  const before = memoryMb()
  options.say(`memory after ${few} calls: ${before.toFixed(1)} MB; ${many - few} more`)
  await pressCount(ours, { callers: MEMORY_CALLERS, operations: many - few })
  return rowOf({
    case: `1 KB, ${MEMORY_CALLERS} callers`,
    metric: `MB in use after ${many.toLocaleString('en')} calls : after ${few.toLocaleString('en')}`,
    ours: [memoryMb()],
    baseline: [before],
    target: { bound: 'at most', value: 1.2 },
  })
}

/** What is still in use when everything that is not has been collected: the heap, and buffers outside of it. */
function memoryMb(): number {
  setFlagsFromString('--expose-gc')
  const collect: unknown = runInNewContext('gc')
  if (typeof collect !== 'function') throw new Error('memory cannot be measured without a collection')
  collect()
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return (heapUsed + external) / 1e6
}
