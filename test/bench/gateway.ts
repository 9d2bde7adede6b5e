import { makeSecret } from '#api/key-secret.ts'
import { findFreePort } from '#local/free-port.ts'
import { startProcess, type RunningProcess } from '#local/child-process.ts'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { makeScratchFolder } from '../support/scratch-folder.ts'
import { freshPrompts, UPSTREAM_MODEL } from './calls-load.ts'
import { rowOf, type Bench, type BenchOptions, type Row, type Size, type Target as Bound } from './frame.ts'
import { openStreams, pressChat, warmUp, type MeasuredChat, type Target } from './gateway-load.ts'
import { createTenant, ROUTE } from './ledger-tenant.ts'
import { verifyClean, withServer, type BenchDatabase } from './postgres.ts'
import { residentMb } from './resident.ts'
import { startBenchProvider, type BenchProvider } from './runs-provider.ts'

const SERVER = fileURLToPath(new URL('../../src/server.ts', import.meta.url))
const PROXY = fileURLToPath(new URL('bare-proxy.ts', import.meta.url))
const readySchema = z.object({ url: z.string() })

const BYTES = 1_024
const CONNECTIONS = 16
const REPETITIONS = 7
const MEASURE_MS = 2_000
const LEAD_IN_MS = 300
/**
 * As many for each party, as what is compiled depends on how often it ran: V8 optimizes for good what ran three thousand
 * times. In the same time the bare proxy would have answered many times as many.
 */
const WARM_UP: Readonly<Record<Size, number>> = { quick: 500, usual: 10_000, full: 10_000 }
const WARM_UP_CALLERS = 32
const ADDED: Bound = { bound: 'at most', value: 4 }
const ADDED_TO_FIRST: Bound = { bound: 'at most', value: 5 }
const OF_PROXY: Bound = { bound: 'at least', value: 0.3 }
const STREAMS = 2_000
const STREAMS_MB: Bound = { bound: 'at most', value: 600 }
/** Opened at the same time. */
const OPENERS = 100
/** After the last one has begun: what opening them took is collected by then. */
const OPEN_FOR_MS = 10_000
const PROVIDER_KEY = 'sandbox-key'

export const gatewayBench: Bench = {
  name: 'gateway',
  says: 'requests of clients through an API process, beside the provider itself and a bare proxy',
  run: (options) =>
    withServer(options, async (server) => {
      const database = await server.create('bench')
      const folder = await makeScratchFolder('bench-gateway')
      const port = options.peer?.providerPort ?? 0
      const provider = await startBenchProvider(folder, { port, apiKey: PROVIDER_KEY })
      try {
        const rows = await runOn({ database, provider, folder, options })
        options.say('verifying')
        await verifyClean(database)
        return rows
      } finally {
        await provider.stop()
        await rm(folder, { recursive: true, force: true })
      }
    }),
}

interface Place {
  readonly database: BenchDatabase
  readonly provider: BenchProvider
  readonly folder: string
  readonly options: BenchOptions
}

interface Targets {
  readonly ours: Target
  readonly direct: Target
  readonly proxy: Target
  readonly peer: Target | undefined
}

type Name = keyof Targets
/** One repetition: all of them, one right after the other. */
type Turn = Readonly<Partial<Record<Name, MeasuredChat>>>

async function runOn(place: Place): Promise<readonly Row[]> {
  const { provider, folder, options } = place
  const secret = makeSecret('pk')
  await createTenant(place.database, { upstreamModel: UPSTREAM_MODEL, tokenizer: 'o200k_base', secret })
  const api = await startApi(place)
  const proxy = await startProcess({
    name: 'proxy',
    entry: PROXY,
    env: { ...process.env, BENCH_UPSTREAM: new URL(provider.url).origin },
    logFile: join(folder, 'proxy.log'),
  })
  try {
    const atProvider = { key: provider.apiKey, model: UPSTREAM_MODEL }
    const targets: Targets = {
      ours: { name: 'ours', url: `${urlOf(api)}/v1`, key: secret, model: ROUTE.name },
      direct: { name: 'direct', url: provider.url, ...atProvider },
      proxy: { name: 'proxy', url: `${urlOf(proxy)}/v1`, ...atProvider },
      peer: options.peer && { name: 'peer', ...options.peer },
    }
    const rows: Row[] = []
    for (const isStream of [false, true]) {
      await warmUpAll(targets, { isStream, options })
      for (const callers of [1, 32]) rows.push(...(await measureCase(targets, { isStream, callers, options })))
    }
    rows.push(rowOf({ case: 'after all that', metric: 'MB of the API process', ours: [await residentMb(api.pid)] }))
    await api.stop()
    rows.push(await streamsRow(place, secret))
    return rows
  } finally {
    await proxy.stop()
    await api.stop()
  }
}

/** As it is everywhere, on its own database; nothing here needs Temporal. */
async function startApi({ database, provider, folder }: Place): Promise<RunningProcess> {
  return startProcess({
    name: 'api',
    entry: SERVER,
    env: {
      ...process.env,
      PURSER_DATABASE_URL: database.appUrl,
      PURSER_DATABASE_CONNECTIONS: `${CONNECTIONS}`,
      PURSER_API_PORT: '0',
      PURSER_PROVIDERS: JSON.stringify([{ name: ROUTE.provider, baseUrl: provider.url, apiKey: provider.apiKey }]),
      PURSER_DRAIN_TIMEOUT_MS: '1000',
      TEMPORAL_ADDRESS: `127.0.0.1:${await findFreePort()}`,
    },
    logFile: join(folder, 'api.log'),
  })
}

function urlOf({ ready }: RunningProcess): string {
  return readySchema.parse(ready).url
}

interface Case {
  readonly isStream: boolean
  readonly callers: number
  readonly options: BenchOptions
}

async function measureCase(targets: Targets, each: Case): Promise<readonly Row[]> {
  const { isStream, callers, options } = each
  const load = { isStream, callers, prompts: freshPrompts(BYTES), leadInMs: LEAD_IN_MS, measureMs: MEASURE_MS }
  const names = namesOf(targets)
  const turns: Turn[] = []
  for (let turn = 0; turn < (options.size === 'quick' ? 1 : REPETITIONS); turn += 1) {
    const order = [...names.slice(turn % names.length), ...names.slice(0, turn % names.length)]
    const found: Partial<Record<Name, MeasuredChat>> = {}
    for (const name of order) found[name] = await pressChat(targetOf(targets, name), load)
    turns.push(found)
  }
  const name = `${isStream ? 'streamed' : 'whole'}, ${callers} ${callers === 1 ? 'caller' : 'callers'}`
  const p50s = turns.map((turn) => names.map((each) => turn[each]?.p50Ms.toFixed(2)).join('/'))
  options.say(`${name}: p50 ${names.join('/')} ${p50s.join(' ')}`)
  return rowsOf(name, turns, each)
}

function namesOf(targets: Targets): readonly Name[] {
  return (['ours', 'direct', 'proxy', 'peer'] as const).filter((name) => targets[name])
}

async function warmUpAll(targets: Targets, { isStream, options }: Pick<Case, 'isStream' | 'options'>): Promise<void> {
  const load = { isStream, callers: WARM_UP_CALLERS, prompts: freshPrompts(BYTES), operations: WARM_UP[options.size] }
  for (const name of namesOf(targets)) await warmUp(targetOf(targets, name), load)
}

function targetOf(targets: Targets, name: Name): Target {
  const target = targets[name]
  if (!target) throw new Error(`nobody is called ${name}`)
  return target
}

type Figure = (measured: MeasuredChat) => number

function rowsOf(name: string, turns: readonly Turn[], { isStream, callers }: Case): readonly Row[] {
  const figures = (who: Name, figure: Figure) => turns.map((turn) => figureOf(turn, who, figure))
  const added = (who: Name, figure: Figure) =>
    turns.map((turn) => figureOf(turn, who, figure) - figureOf(turn, 'direct', figure))
  const perSecond: Figure = (measured) => measured.perSecond
  const p50: Figure = (measured) => measured.p50Ms
  const p99: Figure = (measured) => measured.p99Ms
  const first: Figure = (measured) => measured.firstTokenMs
  const beside = (metric: string, figure: Figure, target?: Bound) =>
    ['direct' as const, 'proxy' as const].map((who) =>
      rowOf({
        case: name,
        metric: `${metric}, ours : ${who}`,
        ours: figures('ours', figure),
        baseline: figures(who, figure),
        ...(who === 'proxy' && target && { target }),
      }),
    )
  const addedRow = (metric: string, figure: Figure, target: Bound) => [
    rowOf({ case: name, metric: `${metric}, ours − direct`, ours: added('ours', figure), target }),
    rowOf({ case: name, metric: `${metric}, proxy − direct`, ours: added('proxy', figure) }),
  ]
  const ofPeer = (metric: string, figure: Figure) =>
    turns.some((turn) => turn.peer)
      ? [rowOf({ case: name, metric: `${metric}, peer`, ours: figures('peer', figure) })]
      : []
  const alone = callers === 1
  return [
    ...beside('requests a second', perSecond, alone ? undefined : OF_PROXY),
    ...ofPeer('requests a second', perSecond),
    ...beside('p50 in ms', p50),
    ...beside('p99 in ms', p99),
    ...ofPeer('p50 in ms', p50),
    ...(alone ? addedRow('added p50 in ms', p50, ADDED) : []),
    ...(alone && isStream ? addedRow('added to the first token, p50 in ms', first, ADDED_TO_FIRST) : []),
    ...(isStream ? ofPeer('first token, p50 in ms', first) : []),
  ]
}

function figureOf(turn: Turn, who: Name, figure: Figure): number {
  const measured = turn[who]
  return measured ? figure(measured) : Number.NaN
}

/** What the API process holds in memory while so many clients read. */
/**
 * In an API process of its own: one that had much to do keeps garbage for as long as nobody needs the room, and would be
 * measured by that.
 */
async function streamsRow(place: Place, key: string): Promise<Row> {
  const { provider, options } = place
  const count = options.size === 'quick' ? 100 : STREAMS
  const api = await startApi(place)
  try {
    const target = { name: 'ours', url: `${urlOf(api)}/v1`, key, model: ROUTE.name }
    const prompts = freshPrompts(BYTES)
    await warmUp(target, { isStream: true, callers: WARM_UP_CALLERS, prompts, operations: WARM_UP.quick })
    await provider.fallSilent('from now on')
    const before = await residentMb(api.pid)
    const streams = await openStreams(target, { count, atOnce: OPENERS, prompts })
    await delay(OPEN_FOR_MS)
    const after = await residentMb(api.pid)
    options.say(`${streams.count} open streams: ${Math.round(before)} MB before, ${Math.round(after)} MB then`)
    streams.close()
    await provider.fallSilent('no more')
    return rowOf({
      case: `${count.toLocaleString('en')} open streams`,
      metric: 'MB of the API process',
      ours: [after],
      target: STREAMS_MB,
    })
  } finally {
    await api.stop()
  }
}
