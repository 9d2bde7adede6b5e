import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cacheFolder } from '#local/cache.ts'
import { Endings } from '#local/endings.ts'
import { findFreePorts } from '#local/free-port.ts'
import { startPostgres } from '#local/postgres.ts'
import { prepareDatabase } from '#local/stack-database.ts'
import { readOrMakeOperatorKey } from '#local/stack-folder.ts'
import { type StackProcesses, stackProcesses } from '#local/stack-processes.ts'
import { type OpenSandbox, openSandbox } from '#local/stack-sandbox.ts'
import { prepareTemporalServer } from '#local/temporal-server.ts'
import { startTemporal, type Temporal } from '#local/temporal.ts'
import { Watch } from '#local/watch.ts'
import { type Life, Part } from './part.ts'
import { catalog, sandboxConfig } from './provider.ts'

export type TemporalKind = 'dev' | 'postgres'

export interface TopologyOptions {
  /** For databases and logs. */
  readonly folder: string
  readonly temporal: TemporalKind
  readonly say: (what: string) => void
}

/** Everything that Purser is made of in production, each a process that may be killed and comes back. */
export interface Topology {
  readonly parts: readonly Part[]
  readonly apiUrl: string
  readonly operatorKey: string
  /** As the application's role. */
  readonly databaseUrl: string
  readonly temporalAddress: string
  /** The provider's own book. */
  readonly requestLog: string
  stop(): Promise<void>
}

const { env } = process
/** Purser's own processes, which know some agents more. */
const ENTRIES = { server: entry('server-main.ts'), worker: entry('worker-main.ts') } as const
const WORKERS = ['worker-1', 'worker-2'] as const

export async function startTopology(options: TopologyOptions): Promise<Topology> {
  const endings = new Endings()
  try {
    return await startParts(options, endings)
  } catch (error) {
    await endings.end()
    throw error
  }
}

async function startParts(options: TopologyOptions, endings: Endings): Promise<Topology> {
  const { folder, say } = options
  const parts: Part[] = []
  const begin: Begin = async (name, start) => {
    const part = new Part({ name, begin: start, say })
    endings.add(() => part.stop())
    await part.start()
    parts.push(part)
  }
  const [apiPort = 0, postgresPort = 0, sandboxPort = 0] = await findFreePorts(3)
  const requestLog = join(folder, 'logs', 'sandbox-requests.jsonl')
  const keys = { apiKey: randomKey(), controlKey: randomKey() }
  const logFile = (name: string): string => join(folder, 'logs', `${name}.log`)

  let adminUrl = ''
  await begin('postgres', async () => {
    const postgres = await startPostgres({
      cacheDir: cacheFolder(env),
      dataDir: join(folder, 'postgres'),
      logFile: logFile('postgres'),
      durable: true,
      port: postgresPort,
    })
    adminUrl = postgres.adminUrl
    return postgres
  })
  const { appUrl } = await prepareDatabase(adminUrl)
  let sandbox: OpenSandbox | undefined
  await begin('provider', async () => {
    const settings = { ...env, SANDBOX_CONFIG: JSON.stringify(sandboxConfig) }
    const place = { logFile: logFile('sandbox'), requestLog, port: sandboxPort }
    sandbox = await openSandbox({ env: settings, ...place, ...keys })
    return lifeOf(sandbox)
  })
  const temporalAddress = await beginTemporal(options, begin)
  const { key: operatorKey } = await readOrMakeOperatorKey(folder)
  const processes = await stackProcesses({
    env,
    dataDir: folder,
    provider: { kind: 'sandbox', catalog },
    sandbox,
    databaseUrl: appUrl,
    temporalAddress,
    isTemporalOurs: true,
    cableAddress: temporalAddress,
    operatorKey,
    apiPort,
    watch: new Watch(),
    entries: ENTRIES,
  })
  const apiUrl = `http://127.0.0.1:${apiPort}`
  await begin('api', () => beginApi(processes, apiUrl))
  for (const name of WORKERS) await begin(name, async () => lifeOf(await processes.startWorker(name)))
  return {
    parts,
    apiUrl,
    operatorKey,
    databaseUrl: appUrl,
    temporalAddress,
    requestLog,
    stop: () => endings.end(),
  }
}

type Begin = (name: string, start: () => Promise<Life>) => Promise<void>

/** Answers the address, which stays the same. */
async function beginTemporal(options: TopologyOptions, begin: Begin): Promise<string> {
  const { folder } = options
  const cacheDir = cacheFolder(env)
  const logFile = (name: string): string => join(folder, 'logs', `${name}.log`)
  const { TEMPORAL_ADDRESS: _notOurs, ...ownServer } = env
  if (options.temporal === 'dev') {
    const [port = 0] = await findFreePorts(1)
    const server = { cacheDir, env: ownServer, logFile: logFile('temporal'), dbFile: join(folder, 'temporal.db'), port }
    await begin('temporal', () => startTemporal(server))
    return `127.0.0.1:${port}`
  }
  const [port = 0] = await findFreePorts(1)
  let adminUrl = ''
  await begin('temporal-postgres', async () => {
    const dataDir = join(folder, 'temporal-postgres')
    const postgres = await startPostgres({
      cacheDir,
      dataDir,
      logFile: logFile('temporal-postgres'),
      durable: true,
      port,
    })
    adminUrl = postgres.adminUrl
    return postgres
  })
  const server = await prepareTemporalServer({
    env: ownServer,
    cacheDir,
    folder: join(folder, 'temporal-server'),
    logFile: logFile('temporal'),
    adminUrl,
  })
  let temporal: Temporal | undefined
  await begin('temporal', async () => {
    temporal = await server.start()
    return temporal
  })
  if (!temporal) throw new Error('Temporal was started and is not there.')
  return temporal.address
}

async function beginApi(processes: StackProcesses, url: string) {
  const server = await processes.startServer()
  // Clients know one place.
  if (server.url !== url) {
    await server.process.stop()
    throw new Error(`The API listens at ${server.url} and not at ${url}.`)
  }
  return lifeOf(server.process)
}

function lifeOf(child: Pick<OpenSandbox, 'exited' | 'kill' | 'stop'> & { readonly pid?: number }): Life {
  return { pid: child.pid, exited: child.exited, kill: () => child.kill('SIGKILL'), stop: () => child.stop() }
}

function entry(file: string): string {
  return fileURLToPath(new URL(`processes/${file}`, import.meta.url))
}

function randomKey(): string {
  return randomBytes(18).toString('base64url')
}
