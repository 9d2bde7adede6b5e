import { join } from 'node:path'
import pg from 'pg'
import type { Connection } from '@temporalio/client'
import { msToTs } from '@temporalio/common/lib/time.js'
import { makeFolder } from './cache.ts'
import { spawnChild } from './child-process.ts'
import { findFreePortsBelow } from './free-port.ts'
import { withProgress } from './progress.ts'
import { writePrivateFile } from './stack-state.ts'
import { NAMESPACE, waitUntilServing } from './temporal-health.ts'
import { describeTemporal, type Temporal, withoutSettings } from './temporal.ts'
import { findTemporalServerPrograms } from './temporal-server-programs.ts'
import { runTool } from './tool-run.ts'

export interface TemporalServerOptions {
  readonly env: NodeJS.ProcessEnv
  readonly cacheDir: string
  /** Gets its configuration, which holds the password of the database. */
  readonly folder: string
  readonly logFile: string
  /** Of the superuser of a Postgres that is Temporal's alone: its transactions would delay Purser's events. */
  readonly adminUrl: string
}

/** A server that can be started again, with the same ports and the same workflows. */
export interface PreparedTemporalServer {
  start(): Promise<Temporal>
}

interface Store {
  readonly database: string
  /** The name of its tables' definition inside the tool. */
  readonly schema: string
}

const STORES = {
  main: { database: 'temporal', schema: 'postgresql/v12/temporal' },
  visibility: { database: 'temporal_visibility', schema: 'postgresql/v12/visibility' },
} as const satisfies Record<string, Store>

const SCHEMA_TIMEOUT_MS = 120_000
/** A killed server's place in the membership table lapses first. */
const START_TIMEOUT_MS = 120_000
const RETENTION = '7 days'
const ALREADY_EXISTS = 6

/**
 * Prepares Temporal's own server, all of its services in one process on loopback, on a Postgres: the production shape, where
 * the dev server has a file. Makes or updates its two databases.
 */
export async function prepareTemporalServer(options: TemporalServerOptions): Promise<PreparedTemporalServer> {
  const programs = await findTemporalServerPrograms(options)
  await withProgress("Preparing Temporal's databases", async () => {
    for (const store of Object.values(STORES)) await prepareStore(store, programs.sqlTool, options)
  })
  await makeFolder(options.folder)
  const ports = await findFreePortsBelow(PORTS_END, PORTS)
  const configFile = join(options.folder, 'temporal-server.json')
  await writePrivateFile(configFile, JSON.stringify(configOf(options.adminUrl, ports), undefined, 2))
  const address = `127.0.0.1:${ports[0]}`
  return {
    start: () =>
      withProgress("Starting Temporal's server", async () => {
        const child = await spawnChild({
          command: programs.server,
          args: ['--config-file', configFile, '--allow-no-auth', 'start'],
          env: withoutSettings(options.env),
          logFile: options.logFile,
          cwd: options.folder,
        })
        const hasEnded = () => child.hasExited()
        const serves = await waitUntilServing({
          address,
          timeoutMs: START_TIMEOUT_MS,
          hasEnded,
          prepare: makeNamespace,
        })
        if (serves) return describeTemporal(child, address, undefined)
        const log = (await child.readLog()).trimEnd().slice(-2_000)
        child.kill('SIGKILL')
        await child.exited
        throw new Error(`Temporal's server did not start. Its last lines:\n${log}`)
      }),
  }
}

async function prepareStore(store: Store, sqlTool: string, options: TemporalServerOptions): Promise<void> {
  const { database, schema } = store
  const url = new URL(options.adminUrl)
  await makeDatabase(options.adminUrl, database)
  url.pathname = `/${database}`
  const env = {
    ...withoutSettings(options.env),
    SQL_PLUGIN: 'postgres12',
    SQL_HOST: url.hostname,
    SQL_PORT: url.port,
    SQL_USER: url.username,
    SQL_PASSWORD: decodeURIComponent(url.password),
    SQL_DATABASE: database,
  }
  const tool = (...args: string[]) => runTool({ command: sqlTool, args, cwd: '/', env, timeoutMs: SCHEMA_TIMEOUT_MS })
  if (!(await hasVersions(url.href))) await tool('setup-schema', '--version', '0.0')
  await tool('update-schema', '--schema-name', schema)
}

async function makeDatabase(adminUrl: string, name: string): Promise<void> {
  const known = await ask(adminUrl, `select from pg_database where datname = '${name}'`)
  if (known === 0) await ask(adminUrl, `create database ${name}`)
}

/** Whether the tool's own tables are there, which tell it what to update. */
async function hasVersions(url: string): Promise<boolean> {
  return (await ask(url, "select from pg_tables where tablename = 'schema_version'")) > 0
}

async function ask(url: string, statement: string): Promise<number> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    return (await client.query(statement)).rowCount ?? 0
  } finally {
    await client.end()
  }
}

/** A new server has no namespace but its own. */
async function makeNamespace({ workflowService }: Connection): Promise<void> {
  await workflowService
    .registerNamespace({ namespace: NAMESPACE, workflowExecutionRetentionPeriod: msToTs(RETENTION) })
    .catch((error: unknown) => {
      const isKnown = error instanceof Error && 'code' in error && error.code === ALREADY_EXISTS
      if (!isKnown) throw error
    })
}

/** Two for each service, and the frontend's HTTP. */
const PORTS = 9
/** Its table of members keeps ports in a smallint. */
const PORTS_END = 32_768
const SERVICES = ['frontend', 'history', 'matching', 'worker'] as const

/** YAML takes JSON. The same shape as the module's `config/development-postgres12.yaml`, without what is exported. */
function configOf(adminUrl: string, ports: readonly number[]) {
  const [frontendPort] = ports
  const httpPort = ports[PORTS - 1]
  return {
    log: { stdout: true, level: 'warn' },
    persistence: {
      defaultStore: 'main',
      visibilityStore: 'visibility',
      numHistoryShards: 4, // can never be changed; a production cluster has hundreds
      datastores: {
        main: { sql: sqlOf(adminUrl, STORES.main.database, 20) },
        visibility: { sql: sqlOf(adminUrl, STORES.visibility.database, 4) },
      },
    },
    global: { membership: { maxJoinDuration: '30s', broadcastAddress: '127.0.0.1' } },
    services: Object.fromEntries(
      SERVICES.map((name, index) => [
        name,
        {
          rpc: {
            grpcPort: ports[2 * index],
            membershipPort: ports[2 * index + 1],
            bindOnIP: '127.0.0.1',
            ...(name === 'frontend' && { httpPort }),
          },
        },
      ]),
    ),
    clusterMetadata: {
      enableGlobalNamespace: false,
      failoverVersionIncrement: 10,
      masterClusterName: 'active',
      currentClusterName: 'active',
      clusterInformation: {
        active: {
          enabled: true,
          initialFailoverVersion: 1,
          rpcName: 'frontend',
          rpcAddress: `127.0.0.1:${frontendPort}`,
        },
      },
    },
    dcRedirectionPolicy: { policy: 'noop' },
  }
}

function sqlOf(adminUrl: string, databaseName: string, maxConns: number) {
  const url = new URL(adminUrl)
  return {
    pluginName: 'postgres12',
    databaseName,
    connectAddr: url.host,
    connectProtocol: 'tcp',
    user: url.username,
    password: decodeURIComponent(url.password),
    maxConns,
    maxIdleConns: maxConns,
    maxConnLifetime: '1h',
  }
}
