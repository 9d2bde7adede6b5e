import { migrate } from '#db/migrate.ts'
import { cacheFolder } from '#local/cache.ts'
import { startPostgres } from '#local/postgres.ts'
import { join } from 'node:path'
import pg from 'pg'
import { onTestFinished } from 'vitest'
import type { TestDatabase } from './postgres.ts'

export const PASSWORDS = Object.freeze({ ownerPassword: 'owner', appPassword: 'app' })

export interface TestCluster {
  readonly adminUrl: string
  /** Postgres' own data directory. */
  readonly folder: string
  database(name: string): TestDatabase
}

/** A Postgres of the test's own, in a folder that may hold a cluster already; it ends with the test. */
export async function useCluster(dataDir: string): Promise<TestCluster> {
  const server = await startPostgres({
    cacheDir: cacheFolder(process.env),
    dataDir,
    logFile: join(dataDir, 'postgres.log'),
    durable: true,
  })
  onTestFinished(() => server.stop())
  const urlOf = (name: string, user?: { readonly name: string; readonly password: string }) => {
    const url = new URL(server.adminUrl)
    Object.assign(url, { pathname: `/${name}`, ...(user && { username: user.name, password: user.password }) })
    return url.href
  }
  return {
    adminUrl: server.adminUrl,
    folder: join(dataDir, 'cluster'),
    database: (name) => ({
      adminUrl: urlOf(name),
      appUrl: urlOf(name, { name: 'purser_app', password: PASSWORDS.appPassword }),
      ownerUrl: urlOf(name, { name: 'purser_owner', password: PASSWORDS.ownerPassword }),
      drop: () => Promise.resolve(),
    }),
  }
}

/** Makes a database of this name, migrated. */
export async function createMigrated(cluster: TestCluster, name: string): Promise<TestDatabase> {
  const admin = new pg.Client(cluster.adminUrl)
  await admin.connect()
  await admin.query(`create database ${name}`)
  await admin.end()
  const database = cluster.database(name)
  await migrate({ adminUrl: database.adminUrl, ...PASSWORDS })
  return database
}
