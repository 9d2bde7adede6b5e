import { runRequestSchema } from '#contracts/api-run.ts'
import { connectDatabase } from '#db/database.ts'
import { startRun } from '#db/run-start.ts'
import type { Database } from '#db/schema.ts'
import { cacheFolder } from '#local/cache.ts'
import { startProcess, type RunningProcess } from '#local/child-process.ts'
import { startTemporal } from '#local/temporal.ts'
import { Client, Connection } from '@temporalio/client'
import type { Kysely } from 'kysely'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { makeScratchFolder } from '../support/scratch-folder.ts'
import { createTenant, ROUTE, type Tenant } from './ledger-tenant.ts'
import type { BenchDatabase, BenchServer } from './postgres.ts'
import { bareRunId } from './runs-bare.ts'
import { startBenchProvider, type BenchProvider } from './runs-provider.ts'

/** Where a dev server keeps its workflows. */
export type Storage = 'file' | 'memory'

/** One of the two that are measured side by side: workflows of the same code, on a worker of the same settings. */
export interface Side {
  readonly name: 'ours' | 'bare'
  readonly worker: RunningProcess
  /** Makes what so many runs need before their workflows start: rows and envelopes of ours, nothing of the other. */
  prepare(agent: string, inputs: readonly object[]): Promise<readonly PreparedRun[]>
}

export interface PreparedRun {
  start(): Promise<void>
  /** Throws unless it completed. */
  ended(): Promise<void>
}

/** A Temporal dev server, a provider, a database, and a worker process for each side. */
export interface Stage {
  readonly ours: Side
  readonly bare: Side
  readonly tenant: Tenant
  readonly database: BenchDatabase
  readonly db: Kysely<Database>
  readonly provider: BenchProvider
  readonly temporalAddress: string
}

type SideName = Side['name']

const CONNECTIONS = 8
const WORKER = fileURLToPath(new URL('runs-worker.ts', import.meta.url))
/** Of each run, in USD: more than any of them spends. */
const MONEY = '5'

export const TASK_QUEUES: Readonly<Record<SideName, string>> = { ours: 'bench-ours', bare: 'bench-bare' }

export async function withStage<Result>(
  server: BenchServer,
  storage: Storage,
  work: (stage: Stage) => Promise<Result>,
): Promise<Result> {
  const folder = await makeScratchFolder('bench-runs')
  await using ends = new AsyncDisposableStack()
  ends.defer(() => rm(folder, { recursive: true, force: true }))
  const database = await server.create(`runs_${storage}`)
  const tenant = await createTenant(database, { upstreamModel: 'sandbox-echo', tokenizer: 'o200k_base' })
  const db = connectDatabase({ url: database.appUrl, maxConnections: CONNECTIONS })
  ends.defer(() => db.destroy())
  const provider = await startBenchProvider(folder)
  ends.defer(() => provider.stop())
  // A server that somebody else runs keeps its workflows who knows where.
  const { TEMPORAL_ADDRESS: _notOurs, ...env } = process.env
  const temporal = await startTemporal({
    env,
    cacheDir: cacheFolder(env),
    logFile: join(folder, 'temporal.log'),
    ...(storage === 'file' && { dbFile: join(folder, 'temporal.db') }),
  })
  ends.defer(() => temporal.stop())
  const connection = await Connection.connect({ address: temporal.address })
  ends.defer(() => connection.close())
  const client = new Client({ connection })
  const startSide = async (name: SideName): Promise<Side> => {
    const worker = await startProcess({
      name: `${name} worker`,
      entry: WORKER,
      env: {
        ...env,
        BENCH_WORKER: name,
        PURSER_DATABASE_URL: database.appUrl,
        PURSER_PROVIDERS: JSON.stringify([{ name: ROUTE.provider, baseUrl: provider.url, apiKey: provider.apiKey }]),
        PURSER_TASK_QUEUE: TASK_QUEUES[name],
        TEMPORAL_ADDRESS: temporal.address,
      },
      logFile: join(folder, `${name}.log`),
      readyTimeoutMs: 120_000,
    })
    ends.defer(() => worker.stop())
    return sideOf(name, { worker, client, db, tenant })
  }
  const ours = await startSide('ours')
  const bare = await startSide('bare')
  return await work({ ours, bare, tenant, database, db, provider, temporalAddress: temporal.address })
}

function sideOf(
  name: SideName,
  on: {
    readonly worker: RunningProcess
    readonly client: Client
    readonly db: Kysely<Database>
    readonly tenant: Tenant
  },
): Side {
  const { worker, client, db, tenant } = on
  const idOf = (agent: string, input: object): Promise<string> =>
    name === 'ours' ? openRun(db, tenant, agent, input) : Promise.resolve(bareRunId(input))
  return {
    name,
    worker,
    prepare: (agent, inputs) =>
      Promise.all(
        inputs.map(async (input) => {
          const runId = await idOf(agent, input)
          return {
            start: async () =>
              void (await client.workflow.start(agent, {
                workflowId: runId,
                taskQueue: TASK_QUEUES[name],
                args: [{ runId }],
              })),
            async ended() {
              const end: unknown = await client.workflow.getHandle(runId).result()
              if (!isCompleted(end)) throw new Error(`a run of the bench ended so: ${JSON.stringify(end)}`)
            },
          }
        }),
      ),
  }
}

/** As the API writes it: row, envelope, money, command and event in one transaction. */
function openRun(
  db: Kysely<Database>,
  { scope, apiKeyId: keyId }: Tenant,
  agent: string,
  input: object,
): Promise<string> {
  const request = runRequestSchema.parse({
    agent,
    model: ROUTE.name,
    input,
    envelope: { pockets: [{ balanceClass: ROUTE.balanceClass, amount: { amount: MONEY, currency: ROUTE.currency } }] },
    onExhausted: 'pause',
  })
  return db.transaction().execute((trx) => startRun(trx, scope, { request, input, keyId, nowMs: Date.now() }))
}

function isCompleted(end: unknown): boolean {
  return typeof end === 'object' && end !== null && 'state' in end && end.state === 'completed'
}
