import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { migrate } from '#db/migrate.ts'
import { cacheFolder } from '#local/cache.ts'
import { startPostgres } from '#local/postgres.ts'
import { ensureTemporal, startTemporal } from '#local/temporal.ts'
import { makeClusterFolder, makeScratchFolder } from './scratch-folder.ts'
import { CLIENT_WORKERS, E2E_WORKERS, INTEGRATION_WORKERS } from './workers.ts'

/** A cluster that the global setup started, of those of `inject('postgres')`. */
export interface PostgresService {
  readonly adminUrl: string
  readonly ownerPassword: string
  readonly appPassword: string
  /** A migrated, closed database: `createTestDatabase` clones it. */
  readonly templateName: string
}

export interface TemporalService {
  readonly address: string
}

declare module 'vitest' {
  interface ProvidedContext {
    /** One for each worker that runs beside another: what is open in one cluster hides events of all its databases. */
    postgres: readonly PostgresService[]
    temporal: TemporalService
  }
}

type Stop = () => Promise<void>

const { env } = process

/**
 * Starts what a suite needs, once for all suites that need it; vitest calls this before the tests of each suite that
 * has any. The Temporal server may have to be built first, which takes minutes: here, not within a test's time.
 */
export async function setup(project: TestProject): Promise<Stop> {
  if (project.name === 'local') {
    const { TEMPORAL_ADDRESS: _notOurs, ...ownServer } = env // its tests kill what they start
    await ensureTemporal({ env: ownServer, cacheDir: cacheFolder(env) })
    return async () => undefined
  }
  const stops: Stop[] = []
  const provided = project.vitest.getRootProject().getProvidedContext()
  if (!('postgres' in provided)) {
    const count = clustersOf(project.name)
    const servers = await Promise.all(Array.from({ length: count }, () => startTestPostgres(count)))
    project.vitest.provide(
      'postgres',
      servers.map(({ service }) => service),
    )
    stops.push(...servers.map(({ stop }) => stop))
  }
  if (project.name === 'e2e' || project.name === 'long') stops.push(await provideTemporal(project))
  return async () => {
    for (const stop of stops.toReversed()) await stop()
  }
}

/** As many as files of any suite of the run are tested at the same time. */
function clustersOf(suite: string): number {
  if (suite === 'long') return 1
  if (suite === 'clients') return CLIENT_WORKERS
  return Math.max(INTEGRATION_WORKERS, E2E_WORKERS)
}

/** @param count how many share the machine's memory */
async function startTestPostgres(count: number): Promise<{ readonly service: PostgresService; readonly stop: Stop }> {
  const folder = await makeClusterFolder(count)
  const server = await startPostgres({
    cacheDir: cacheFolder(env),
    dataDir: folder,
    logFile: join(folder, 'postgres.log'),
    durable: true,
  })
  const ownerPassword = randomBytes(12).toString('hex')
  const appPassword = randomBytes(12).toString('hex')
  const templateName = 'purser_template'
  const templateUrl = new URL(server.adminUrl)
  templateUrl.pathname = `/${templateName}`
  await runAsAdmin(server.adminUrl, `create database ${templateName}`)
  await migrate({ adminUrl: templateUrl.href, ownerPassword, appPassword })
  await runAsAdmin(server.adminUrl, `alter database ${templateName} with allow_connections false`)
  const stop = async () => {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
  return { service: { adminUrl: server.adminUrl, ownerPassword, appPassword, templateName }, stop }
}

async function provideTemporal(project: TestProject): Promise<Stop> {
  const folder = await makeScratchFolder('services')
  const server = await startTemporal({ env, cacheDir: cacheFolder(env), logFile: join(folder, 'temporal.log') })
  project.vitest.provide('temporal', { address: server.address })
  return async () => {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

async function runAsAdmin(adminUrl: string, statement: string): Promise<void> {
  const client = new pg.Client(adminUrl)
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
